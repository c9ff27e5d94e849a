"""Images that fell, from the files that ``advbench attack`` keeps: the gallery of a page.

Only the images that are shown are held in memory, however many the file has.
"""

import base64
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.robust_shares import within_radius
from robustbench_cli.core.threat_text import format_threat
from robustbench_cli.report.number_trust import attack_trust
from robustbench_cli.runs import records
from robustbench_cli.runs.records import Run

if TYPE_CHECKING:
    import numpy as np

_SMALL = 64
"""Images of at most this many pixels per side are kept as they are, larger ones as JPEG."""
_LARGEST = 256
"""The longest side of a picture, in pixels."""
_BYTES = 1 << 15
"""The most bytes that a fact about an image has: a path."""
_DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class SeenImage:
    """An image as the model saw it: the predicted class, and the picture as a data URI."""

    picture: str
    prediction: str
    right: bool
    confidence: float | None
    """The softmax probability of the prediction; None where the file does not tell."""


@dataclass(frozen=True, kw_only=True)
class FallenImage:
    """An image that was right and is wrong under attack."""

    name: str
    label: str
    clean: SeenImage
    adversarial: SeenImage
    difference: str
    """The picture of the amplified difference, as a data URI; no change is grey."""
    norm: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The images that fell in one run of ``advbench attack``, the worst first."""

    run: str
    title: str
    remark: str
    """How far the numbers of the run can be trusted, where that is not the usual; or nothing."""
    images: tuple[FallenImage, ...]
    fell: int
    """The number of all that fell."""
    n: int
    gain: float
    """By how much differences are amplified."""


def gallery(run: Run, folder: Path, most: int) -> Gallery:
    """Return the images of a run that fell: those first about which the model is surest.

    Args:
        folder: of the run.
        most: the largest number of images.

    Raises:
        UserError: the file is missing, damaged, or not the one that the record names.
    """
    import numpy as np

    ((label, outcome),) = run.attacks.items()
    threat, trust = run.settings.threat, attack_trust(run, label)
    where = format_threat(threat.norm, threat.eps, threat.mask)
    path = folder / run.examples.get("file", "adversarial.npz")
    if records.sha256(path) != run.examples.get("sha256"):
        raise UserError(f"{path} is not the file that its record names (sha256)")
    try:
        with zipfile.ZipFile(path) as archive:
            facts = _Facts.read(archive, run.n or 0)
            fell = (facts.clean == facts.y) & (facts.adversarial != facts.y)
            if outcome.minimal:
                fell &= within_radius(facts.norm, threat.eps)
            order = np.lexsort((facts.step, facts.norm, -facts.sureness))
            rows = [int(row) for row in order if fell[row]][:most]
            pairs = [_rows(archive, name, rows, len(facts.y)) for name in ("x", "x_adv")]
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged: {error}") from None
    change = max((float(np.abs(b - a).max()) for a, b in zip(*pairs, strict=True)), default=1.0)
    gain = 1 / (2 * max(change, 1e-12))
    return Gallery(
        run=run.id,
        title=f"{run.subject}{run.settings.behind} under {label}, {records.data_name(run)}, "
        f"{where}",
        remark="" if trust.trust == "sound" else f"{label} is {trust.trust} here",
        images=tuple(
            facts.image(row, x, x_adv, gain) for row, x, x_adv in zip(rows, *pairs, strict=True)
        ),
        fell=int(fell.sum()),
        n=len(fell),
        gain=gain,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Facts:
    """What is told of all N images."""

    y: "np.ndarray"
    clean: "np.ndarray"
    adversarial: "np.ndarray"
    norm: "np.ndarray"
    step: "np.ndarray"
    clean_confidence: "np.ndarray | None" = None
    adversarial_confidence: "np.ndarray | None" = None
    name: "np.ndarray | None" = None
    index: "np.ndarray | None" = None
    """The position in the test split."""
    classes: "np.ndarray | None" = None

    @classmethod
    def read(cls, archive: zipfile.ZipFile, n: int) -> "_Facts":
        import numpy as np

        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        found = {}
        for name in cls.__dataclass_fields__.keys() & held.keys():
            if held[name].file_size > (1 << 16) + _BYTES * max(n, 1000):
                raise ValueError(f"{name!r} is too large")
            with archive.open(held[name]) as opened:
                found[name] = np.lib.format.read_array(opened, allow_pickle=False)
            if name != "classes" and found[name].shape != (n,):
                raise ValueError(f"{name!r} is not of {n} images")
        if missing := {"y", "clean", "adversarial", "norm", "step"} - found.keys():
            raise ValueError(f"it has no {sorted(missing)[0]!r}")
        return cls(**found)

    @property
    def sureness(self) -> "np.ndarray":
        """The confidence in the prediction under attack (N); 0 where the file does not tell."""
        import numpy as np

        known = self.adversarial_confidence
        return np.zeros(len(self.y)) if known is None else np.nan_to_num(known)

    def image(self, row: int, x: "np.ndarray", x_adv: "np.ndarray", gain: float) -> FallenImage:
        difference = (x_adv - x) * gain + 0.5
        right = int(self.y[row])
        return FallenImage(
            name=self._name(row),
            label=self._called(right),
            clean=self._seen(x, int(self.clean[row]), right, self.clean_confidence, row),
            adversarial=self._seen(
                x_adv, int(self.adversarial[row]), right, self.adversarial_confidence, row
            ),
            difference=_picture(difference),
            norm=float(self.norm[row]),
            step=int(self.step[row]),
        )

    def _name(self, row: int) -> str:
        if self.name is not None:
            return str(self.name[row])
        return f"image {row if self.index is None else int(self.index[row])}"

    def _seen(
        self, x: "np.ndarray", predicted: int, right: int, sure: "np.ndarray | None", row: int
    ) -> SeenImage:
        return SeenImage(
            picture=_picture(x),
            prediction=self._called(predicted),
            right=predicted == right,
            confidence=None if sure is None else float(sure[row]),
        )

    def _called(self, number: int) -> str:
        known = self.classes is not None and 0 <= number < len(self.classes)
        return str(self.classes[number]) if known and self.classes is not None else str(number)


def _rows(archive: zipfile.ZipFile, name: str, rows: Sequence[int], n: int) -> list["np.ndarray"]:
    """Return some rows (C, H, W) of an array (N, C, H, W), in the order asked for."""
    import numpy as np

    form = np.lib.format
    with archive.open(f"{name}.npy") as opened:
        version = form.read_magic(opened)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, fortran, dtype = read(opened)
        if fortran or dtype != np.float32 or len(shape) != 4 or shape[0] != n:
            raise ValueError(f"{name!r} holds no {n} images")
        size = int(np.prod(shape[1:])) * dtype.itemsize
        kept = {}
        for row in range(max(rows, default=-1) + 1):
            content = _exactly(opened, size)
            if row in rows:
                kept[row] = np.frombuffer(content, dtype).reshape(shape[1:])
    return [kept[row] for row in rows]


def _exactly(opened: IO[bytes], size: int) -> bytes:
    content = opened.read(size)
    if len(content) != size:
        raise EOFError("it ends too early")
    return content


def _picture(x: "np.ndarray") -> str:
    """Return an image (C, H, W) in [0, 1] as a data URI."""
    import numpy as np
    from PIL import Image

    pixels = (np.nan_to_num(x).clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    plain = pixels[:, :, 0] if pixels.shape[2] < 3 else pixels[:, :, :3]
    image, written = Image.fromarray(np.ascontiguousarray(plain)), io.BytesIO()
    small = max(image.size) <= _SMALL
    image.thumbnail((_LARGEST, _LARGEST))
    image.save(written, "PNG" if small else "JPEG", **({} if small else {"quality": 88}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"

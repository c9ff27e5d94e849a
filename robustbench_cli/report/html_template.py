"""Pages of HTML: the templates and style sheets of this package, filled in and escaped."""

import base64
import hashlib
from importlib import resources
from typing import Any

from robustbench_cli.core.errors import UserError
from robustbench_cli.core.safe_text import printable


def template_text(name: str) -> str:
    """Return a file of ``templates``: a style sheet, a script, or a template."""
    return (resources.files(__package__) / "templates" / name).read_text(encoding="utf-8")


def filled(name: str, **content: Any) -> str:
    """Return a page whose texts are escaped, with its style sheets and its one script inside.

    The page allows no other script to run and nothing to be fetched.

    Args:
        name: of the template.
        content: what the template names; texts that are ``Markup`` already are not escaped again.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError:
        raise UserError("pages of HTML need jinja2: pip install jinja2") from None

    script = template_text("study.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pages = Environment(
        loader=DictLoader({name: template_text(name)}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return pages.get_template(name).render(
        style=Markup(template_text("style.css") + template_text("study.css")),
        script=Markup(script),
        script_hash=digest,
        **content,
    )

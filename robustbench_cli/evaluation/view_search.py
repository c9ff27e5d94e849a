"""The search models of the views that an attack asks for, each built once per evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cli.evaluation.eval_context import EvalContext
from robustbench_cli.evaluation.search_model import SearchModel, exact_search_model
from robustbench_cli.views import SUBJECT_IMAGES, View, ViewSubject


class BuiltViews:
    """Views of the model of an evaluation, built when they are first asked for."""

    def __init__(self, context: EvalContext) -> None:
        self._context = context
        self._built: dict[View, SearchModel | None] = {}
        self._forwards = self._backwards = 0

    def search_model(self, view: View) -> SearchModel | None:
        """Return the view as a search model; None where the model gives no reason for it."""
        if view not in self._built:
            with self._counting(self._context.verifier.model):
                model = view.build(self.subject)
            self._built[view] = None if model is None else self._searched(view, model)
        return self._built[view]

    def unpaid(self) -> tuple[int, int]:
        """Return the forward and backward passes that building has cost since the last call.

        They are counted in images.
        """
        spent = self._forwards, self._backwards
        self._forwards = self._backwards = 0
        return spent

    @cached_property
    def subject(self) -> ViewSubject:
        """What views are built from: the same images whatever the order or the batch size."""
        context = self._context
        draw = context.noise.fork("images of views").uniform(torch.empty(len(context.noise.ids), 1))
        rows = draw.squeeze(1).argsort(stable=True)[:SUBJECT_IMAGES].to(context.data.y.device)
        return ViewSubject(
            model=context.verifier.model,
            x=context.data.images(rows),
            y=context.data.y[rows],
            threat=context.threat.only(rows),
            noise=context.noise.only(rows),
            random=context.verifier.random,
        )

    def _searched(self, view: View, model: nn.Module) -> SearchModel:
        own = self._context.search_model
        return replace(
            exact_search_model(model, differentiable=own.differentiable or self._followable(model)),
            faithful=view.faithful,
            passes=view.passes,
            rejection=own.rejection,
        )

    def _followable(self, model: nn.Module) -> bool:
        """Return whether a gradient passes through a view of a model that lets none through."""
        with torch.enable_grad():
            logits: Tensor = model(self.subject.x[:1].clone().requires_grad_())
        return logits.requires_grad

    @contextmanager
    def _counting(self, model: nn.Module) -> Iterator[None]:
        """Count the images that pass through the model while the context is open."""

        def count(_model: nn.Module, inputs: tuple[Any, ...], logits: Any) -> None:
            self._forwards += len(inputs[0])
            if isinstance(logits, Tensor) and logits.requires_grad:
                self._backwards += len(inputs[0])

        handle = model.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()

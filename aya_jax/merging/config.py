"""What `aya merge` merges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar, Literal

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.merging.values import Value, Values, numbers
from aya_jax.parallel.config import MeshConfig

if TYPE_CHECKING:
    from aya_jax.merging.methods import Method

_PER_MODEL = {"weights": "WEIGHTS", "densities": "", "gammas": "", "epsilons": ""}
_WITH_A_RECIPE = (
    "recipe",
    "target",
    "seed",
    "shard_gb",
    "scan",
    "mesh",
    "compilation_cache",
)  # all that may be bound beside a file of mergekit's


@configurable
@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Root of `aya merge`: one model from several of the same shape.

    A number may be one for all; a gradient over layers, (0.0, 0.5, 1.0); or rules by tensor name, (('mlp', 0.3), ('*', 0.5)),
    of which the first holds whose pattern is a part of the name. Weights, densities, gammas and epsilons are a number for all
    models, or a tuple with one of these for each.

    Attributes:
      target: the directory to write; bind TARGET. What is there is replaced only if an earlier merge wrote it.
      recipe: a file of mergekit's, in place of all other fields but seed, shard_gb, scan and mesh; stands on the command line.
      method: "linear", "slerp", "ties", ...; the gin files in merge/ bind it.
      models: run directories, checkpoints, Hugging Face directories or LoRA adapters; "MODEL+ADAPTER" is a model with an
        adapter; bind MODELS.
      base: the model that the others were made from, where the method has one; bind BASE.
      weights: of the models; bind WEIGHTS.
      densities: the share of its changes that each keeps, in (0, 1].
      gammas: of breadcrumbs: the share of the largest changes that each loses.
      epsilons: of DELLA: half the range of the chances with which changes are kept.
      t: of SLERP: from 0, the base or the first model, to 1.
      scale: what the merged change is multiplied by.
      normalize: divide by the sum of weights (None: as the method is defined).
      rescale: what is done to changes that are kept (None: as the method is defined): nothing, divided by the chance that they
        are kept, or scaled so that the sum of magnitudes stays ("l1", as mergekit).
      steps: where models is one run directory: which of its checkpoints are merged, or "all".
      decay: in place of weights: those of an exponential moving average over models, the oldest first.
      seed: of random masks.
      dtype: of the weights that are written; None: as the base, or the first model.
      tokenizer: whose vocabulary the result has, where they differ: "base", "union", or one of models.
      chat_template: one of models, whose chat template the result has, or a Jinja template (None: what all have that have one).
      shard_gb: the largest safetensors file, in 10^9 bytes.
      scan: look through all weights for NaN and infinity first.
      mesh: what tensors are divided over.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("compilation_cache",)

    target: str
    recipe: tuple[str, ...] = ()
    method: str = ""
    models: tuple[str, ...] = ()
    base: str | None = None
    weights: Values = 1.0
    densities: Values = 1.0
    gammas: Values = 0.01
    epsilons: Values = 0.15
    t: Value = 0.5
    scale: Value = 1.0
    normalize: bool | None = None
    rescale: Literal["none", "inverse_density", "l1"] | None = None
    steps: tuple[int, ...] | Literal["all"] | None = None
    decay: float | None = None
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    shard_gb: float = 5.0
    scan: bool = True
    mesh: MeshConfig = field(default_factory=MeshConfig)
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing, out of range, or not for this method."""
        if not self.target:
            yield Problem("target", "a directory: add --gin.TARGET=...")
        if not self.shard_gb > 0:
            yield Problem("shard_gb", "a size above 0")
        if self.recipe:
            yield from self._beside_a_recipe()
            return
        if not self.method:
            yield Problem(
                "method", "a method: read one of merge/linear.gin, merge/ties.gin, ..., or name a file of mergekit's"
            )
            return
        from aya_jax.merging.methods import METHODS

        if self.method not in METHODS:
            yield Problem("method", f"one of {', '.join(METHODS)}", near_names(self.method, METHODS))
            return
        method = METHODS[self.method]
        yield from self._models_problems(method)
        yield from self._number_problems(method)
        if self.steps is not None and len(self.models) != 1:
            yield Problem("steps", "nothing, or one run directory in models")

    def merged(self) -> tuple[str | None, tuple[str, ...]]:
        """The base and the models beside it. SLERP's base is one of its two models: the first, where none is named."""
        from aya_jax.merging.methods import METHODS

        if METHODS[self.method].base != "first":
            return self.base, self.models
        if self.base is None:
            return (self.models[0] if self.models else None), self.models[1:]
        return self.base, tuple(model for model in self.models if model != self.base)

    @staticmethod
    def uses(name: str) -> dict[str, bool]:
        """Which of the numbers a method of this name has use for."""
        from aya_jax.merging.methods import METHODS

        method, angled = METHODS[name], name in ("slerp", "model_stock")
        return {
            "weights": not angled,
            "densities": method.sparsifier is not None,
            "gammas": method.sparsifier == "outliers",
            "epsilons": method.sparsifier == "ranked",
            "t": name == "slerp",
            "scale": method.is_delta,
            "normalize": not angled and name not in ("karcher", "nuslerp"),
            "rescale": method.sparsifier is not None,
        }

    def _beside_a_recipe(self) -> Iterator[Problem]:
        if len(self.recipe) > 1:
            yield Problem("recipe", "one file of mergekit's; models are given as --gin.MODELS=\"('a', 'b')\"")
        for other in fields(self):
            if other.name not in _WITH_A_RECIPE and getattr(self, other.name) != other.default:
                yield Problem(other.name, f"nothing: {self.recipe[0]} says it; change it there")

    def _models_problems(self, method: Method) -> Iterator[Problem]:
        base, models = self.merged()
        if method.base == "none" and self.base is not None:
            yield Problem("base", f"nothing: {self.method} takes no base; leave BASE out")
        if method.base == "required" and self.base is None:
            yield Problem(
                "base", f"the model that the others were made from, which {self.method} needs: add --gin.BASE=..."
            )
        most = len(models) if method.most is None else method.most
        if self.steps is None and not method.fewest <= len(models) <= most:
            few = method.fewest + (method.base == "first")
            wanted = f"{few} models" if method.most == method.fewest else f"at least {few}"
            yield Problem("models", f"{wanted} for {self.method}: add --gin.MODELS=\"('a', 'b')\"")
        named = [*models, *([base] if base else [])]
        for twice in sorted({name for name in named if named.count(name) > 1}):
            yield Problem("models", f"each model once; {twice} is given twice")
        if self.tokenizer not in (None, "union", "base", *self.models, self.base):
            yield Problem("tokenizer", "'base', 'union' or one of models", near_names(self.tokenizer or "", named))
        if self.tokenizer == "base" and base is None:
            yield Problem("tokenizer", "one of models, or 'union': there is no base")
        template = self.chat_template
        if template is not None and "{" not in template and template not in (*self.models, self.base):
            yield Problem("chat_template", "one of models, or a Jinja template", near_names(template, named))

    def _number_problems(self, method: Method) -> Iterator[Problem]:
        count = len(self.merged()[1])
        for name in _PER_MODEL:
            values = getattr(self, name)
            if isinstance(values, tuple) and self.steps is None and len(values) != count:
                yield Problem(
                    name,
                    f"one for each of {count} models, and not {len(values)} (a gradient of one model is a tuple in the tuple)",
                )
        for name in (*_PER_MODEL, "t", "scale"):
            yield from _shape_problems(name, getattr(self, name))
        if not all(0 < number <= 1 for number in numbers(self.densities)):
            yield Problem("densities", "shares that are kept: above 0, at most 1")
        if not all(0 <= number < 1 for number in numbers(self.gammas)):
            yield Problem("gammas", "shares that are lost: at least 0, less than 1")
        if not all(0 <= number <= 1 for number in numbers(self.t)):
            yield Problem("t", "from 0 to 1")
        if self.decay is not None:
            if not 0 <= self.decay < 1:
                yield Problem("decay", "at least 0, less than 1")
            if self.weights != 1.0 or self.method != "linear":
                yield Problem("decay", "nothing where weights are given; and linear as the method")
        yield from self._unused()

    def _unused(self) -> Iterator[Problem]:
        """What is bound and would change nothing."""
        defaults = {other.name: other.default for other in fields(self)}
        for name, uses in self.uses(self.method).items():
            if not uses and getattr(self, name) != defaults[name]:
                yield Problem(name, f"nothing: {self.method} has no use for it; leave it out")


def _shape_problems(name: str, value: Value | Values) -> Iterator[Problem]:
    """Empty tuples, which are no numbers."""
    if value == ():
        yield Problem(name, "a number, or at least one in the tuple")
    elif isinstance(value, tuple):
        for part in value:
            yield from _shape_problems(name, part) if not isinstance(part, str) else ()

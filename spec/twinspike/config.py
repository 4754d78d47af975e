"""Frozen, validated configs: every option of the method, each with its unit and its range.

A config can't exist in an invalid state: construction checks it, in Python as from TOML or JSON.
Nothing here computes; what an option means is said by the clauses and by the reference.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Literal, TypeVar, get_args

import msgspec

from twinspike.errors import SpecError, refuse, require

Twin = Literal["ann", "snn"]
"""One of the two networks that share weights: artificial (ReLU) or spiking (LIF)."""

TWINS: tuple[Twin, Twin] = ("ann", "snn")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all configs: frozen, unknown keys refused; each is keyword-only.

    Construction checks every field's type (msgspec does so only for what it decodes) and puts it in its
    one form, lists as tuples and whole numbers as floats where floats are meant, then checks ranges.
    """

    def __post_init__(self) -> None:
        for name, kind in _field_types(type(self)):
            try:
                msgspec.structs.force_setattr(self, name, msgspec.convert(getattr(self, name), kind))
            except msgspec.ValidationError as error:
                raise SpecError(f"{type(self).__name__}.{name}: {' '.join(str(error).split())}") from None
        self._check()

    def _check(self) -> None:
        """Refuse values out of range; a config with ranges says them here."""


@functools.cache
def _field_types(kind: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(kind))


AnyConfig = TypeVar("AnyConfig", bound=msgspec.Struct)


def decode(kind: type[AnyConfig], data: Any, what: str = "config") -> AnyConfig:
    """Turn plain data (from TOML, JSON or Python) into a checked config.

    Args:
        kind: the config's type.
        data: nested dicts, lists and scalars.
        what: the name under which errors speak of it.

    Raises:
        SpecError: a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text = " ".join(str(error).split())
        message, _, path = text.rpartition(" - at `$")
        path = path.rstrip("`")
        unknown = re.fullmatch(r"Object contains unknown field `(\w+)`", message)
        if unknown and (told := withdrawn(f"{path}.{unknown[1]}")):
            path, message = f"{path}.{unknown[1]}", told
        raise SpecError(f"{what}{path}: {message}" if message else f"{what}: {text}") from None


_WITHDRAWN = {
    "factorization.view": "no option any more, kernels are always permuted (clauses FAC-2 and FAC-9)",
}
"""Table and key of an option that there was -> what became of it."""


def withdrawn(key: str) -> str | None:
    """What to say of an option that there was, by its key from the root (`method.factorization.view`); None of others."""
    told = _WITHDRAWN.get(".".join(key.split(".")[-2:]))
    return told and f"{told}; leave it out, and train anew what was saved with it"


def encode(config: msgspec.Struct) -> Any:
    """Plain data (dicts, lists, scalars) that `decode` turns back into an equal config."""
    return msgspec.to_builtins(config)


def _finite(what: str, value: float, low: float, high: float, closed: str = "[]") -> None:
    above = value >= low if closed[0] == "[" else value > low
    below = value <= high if closed[1] == "]" else value < high
    bounds = f"a finite number in {closed[0]}{low:g}, {high:g}{closed[1]}"
    require(math.isfinite(value) and above and below, what, expected=bounds, got=value)


# --- neuron ------------------------------------------------------------------------------------------


class _Windowed(Config, frozen=True, kw_only=True):
    """A surrogate with compact support; `width` in units of the potential, > 0."""

    width: float = 1.0

    def _check(self) -> None:
        _finite("surrogate.width", self.width, 0.0, math.inf, "()")


class _Sloped(Config, frozen=True, kw_only=True):
    """A surrogate with infinite support; `slope` per unit of the potential, > 0."""

    slope: float = 2.0

    def _check(self) -> None:
        _finite("surrogate.slope", self.slope, 0.0, math.inf, "()")


class Rectangle(_Windowed, tag="rectangle", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = [|z| < width/2] / width; primitive clip(z/width + 1/2, 0, 1). The paper's, width 1."""


class Triangle(_Windowed, tag="triangle", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = max(0, 1 - |z|/width) / width; primitive 1/2 + y - y|y|/2 at y = clip(z/width, -1, 1)."""


class Sigmoid(_Sloped, tag="sigmoid", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = slope q (1 - q), q = 1/(1 + exp(-slope z)); primitive q."""


class Arctan(_Sloped, tag="arctan", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = (slope/2) / (1 + (pi slope z / 2)^2); primitive atan(pi slope z / 2)/pi + 1/2."""


class FastSigmoid(_Sloped, tag="fast_sigmoid", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = (slope/2) / (1 + slope|z|)^2; primitive (1 + slope z/(1 + slope|z|))/2."""


class Tanh(_Sloped, tag="tanh", tag_field="kind", frozen=True, kw_only=True):
    """h(z) = (slope/2) (1 - tanh(slope z)^2); primitive (1 + tanh(slope z))/2."""


Surrogate = Rectangle | Triangle | Sigmoid | Arctan | FastSigmoid | Tanh
"""Derivative h that stands in for ds/du, z = u - threshold. Each integrates to 1 (clause SUR-1)."""

SURROGATES: tuple[type[Surrogate], ...] = get_args(Surrogate)
"""All of them, in the order in which they are numbered."""

Scope = Literal["constant", "layer", "channel"]
"""A neuron quantity: a constant, learned once per layer (shape ()), or learned per channel (shape (C,))."""


class Neuron(Config, frozen=True, kw_only=True):
    """The leaky integrate-and-fire neuron (clauses LIF-*)."""

    decay: float = 0.25
    """Share of the potential kept per step, in [0, 1]; the initial value where learned, which stays there (clause OPT-8)."""
    threshold: float = 0.5
    """Potential at which the neuron fires, > 0, same unit as the current; the initial value where learned (clause OPT-8)."""
    surrogate: Surrogate = Rectangle()
    """Stands in for the derivative of the spike."""
    reset: Literal["hard", "soft"] = "hard"
    """After a spike: hard sets the potential to `v_reset`, soft subtracts the threshold."""
    v_reset: float = 0.0
    """Potential after a hard reset, < threshold; must stay 0 with soft reset, where it has no meaning."""
    detach_reset: bool = False
    """Whether the gradient ignores the path through the spike in the reset."""
    decay_input: bool = False
    """Whether the current is weighted by 1 - decay."""
    decay_scope: Scope = "constant"
    threshold_scope: Scope = "constant"

    def _check(self) -> None:
        _finite("neuron.decay", self.decay, 0.0, 1.0)
        _finite("neuron.threshold", self.threshold, 0.0, math.inf, "()")
        _finite("neuron.v_reset", self.v_reset, -math.inf, self.threshold, "()")
        if self.reset == "soft":
            require(self.v_reset == 0, "neuron.v_reset", expected="0 with reset = 'soft'", got=self.v_reset)


# --- weights -----------------------------------------------------------------------------------------


class Free(Config, tag="none", tag_field="kind", frozen=True, kw_only=True):
    """U and V are trained without constraint, as the authors do."""


class Penalty(Config, tag="penalty", tag_field="kind", frozen=True, kw_only=True):
    """Adds weight * sum over layers and positions of |U'U - I|^2 + |VV' - I|^2 (Frobenius) to the loss."""

    weight: float = 1e-4
    """Dimensionless, > 0."""

    def _check(self) -> None:
        _finite("orthogonality.weight", self.weight, 0.0, math.inf, "()")


class Retract(Config, tag="retract", tag_field="kind", frozen=True, kw_only=True):
    """After every `every`-th optimizer step U and V return to orthonormal columns and rows."""

    every: int = 100
    """In optimizer steps, >= 1."""
    by: Literal["polar", "qr"] = "polar"
    """polar: the nearest orthonormal matrix; qr: the Q factor with a positive diagonal of R."""

    def _check(self) -> None:
        require(self.every >= 1, "orthogonality.every", expected="a whole number >= 1", got=self.every)


class Factorization(Config, frozen=True, kw_only=True):
    """How kernels become U diag(sigma) V (clauses FAC-*)."""

    scope: Literal["all_convs", "no_stem", "backbone", "with_heads", "none"] = "all_convs"
    """Which layers are factored; `backbone`: stem and body without branches; `none`: the ablation."""
    matricize: Literal["per_position", "out_by_rest"] = "per_position"
    """per_position: one out x in matrix per kernel position; out_by_rest: one out x (in kh kw) matrix."""
    rank: Literal["full"] | int | float = "full"
    """`full`; a whole number >= 1 (cut at min(out, in)); or a fraction in (0, 1) of the energy to keep."""
    orthogonality: Free | Penalty | Retract = Free()

    def _check(self) -> None:
        if isinstance(self.rank, int) and not isinstance(self.rank, bool):
            require(self.rank >= 1, "factorization.rank", expected="a whole number >= 1", got=self.rank)
        elif isinstance(self.rank, float):
            _finite("factorization.rank", self.rank, 0.0, 1.0, "()")


class BatchNorm(Config, frozen=True, kw_only=True):
    """Batch normalization of one twin (clauses BN-*)."""

    time: Literal["per_step", "folded"] = "per_step"
    """per_step: statistics of each step's B images; folded: of all T*B together."""
    momentum: float = 0.1
    """Weight of the new value in the running statistics, in (0, 1]."""
    eps: float = 1e-5
    """Added to the variance under the root, > 0."""
    gamma_init: Literal["one", "threshold"] = "one"
    """Initial gamma of the spiking twin; the artificial twin always starts at 1."""
    replicas: Literal["synchronized", "local"] = "synchronized"
    """Over many devices, statistics of the global batch, as one device computes them, or of each device's samples (clauses DEV-3
    and DEV-4); on one device nothing differs."""

    def _check(self) -> None:
        _finite("batch_norm.momentum", self.momentum, 0.0, 1.0, "(]")
        _finite("batch_norm.eps", self.eps, 0.0, math.inf, "()")


# --- loss --------------------------------------------------------------------------------------------

Preset = Literal["joint", "ann_only", "snn_from_ann", "none"]


class Loss(Config, frozen=True, kw_only=True):
    """The joint self-distillation loss (clauses DIS-*)."""

    alpha: float = 0.1
    """Weight of distillation against cross entropy, in [0, 1]."""
    beta: float = 1e-6
    """Weight of the feature term, >= 0."""
    temperature: float = 3.0
    """Softens teacher and student logits, > 0."""
    form: Literal["ce", "kl"] = "ce"
    """Distillation as cross entropy (the paper) or as Kullback-Leibler divergence; equal gradients."""
    pairs: Preset | tuple[str, ...] = "joint"
    """A preset, or pairs written `student<-teacher`, each exit a twin and a number, weighted if wanted: `snn1<-ann1`,
    `snn2<-ann2*0.5` (clause DIS-11)."""
    supervised: Literal["all", "last", "snn_last"] | tuple[str, ...] = "all"
    """Exits whose cross entropy counts: all, each twin's last, the spiking twin's last, or exits written `snn4`, weighted if
    wanted: `snn1*0.5` (clause DIS-11)."""
    feature_reduction: Literal["sum", "batch_mean", "mean"] = "sum"
    """Squared feature differences: summed, summed then divided by B, or averaged over B and channels."""
    detach_teacher: bool = True
    """Whether teacher logits and the artificial twin's features receive no gradient."""
    isolate_ann: bool = False
    """Whether the spiking twin's gradient into the shared U, V and biases is cut."""
    per_step: bool = False
    """Whether cross entropy and distillation are averages over the T logits of each time step (TET)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread evenly over all classes, in [0, 1) (clause DIS-10)."""
    teacher_time: Literal["step", "sum", "mean"] = "step"
    """With `per_step`, what an exit of the spiking twin teaches with: that step's logits, or their sum or mean over all steps
    (clause DIS-12), with which it may teach itself: `snn4<-snn4`."""
    mse_weight: float = 0.0
    """Weight in [0, 1] of the squared distance of the spiking twin's logits to `mse_target`, against their cross entropy
    (TET's second term; clause DIS-13)."""
    mse_target: float = 1.0
    """What logits are drawn to with `mse_weight`, finite."""

    def _check(self) -> None:
        _finite("loss.alpha", self.alpha, 0.0, 1.0)
        _finite("loss.beta", self.beta, 0.0, math.inf, "[)")
        _finite("loss.label_smoothing", self.label_smoothing, 0.0, 1.0, "[)")
        _finite("loss.mse_weight", self.mse_weight, 0.0, 1.0)
        _finite("loss.mse_target", self.mse_target, -math.inf, math.inf, "()")
        square = self.temperature * self.temperature  # clause DIS-2 multiplies by it
        finite = self.temperature > 0 and math.isfinite(square)
        require(finite, "loss.temperature", expected="a number > 0 whose square is finite", got=self.temperature)
        if isinstance(self.pairs, tuple):
            for student, teacher in map(parse_pair, self.pairs):
                own = student == teacher and not (student.twin == "snn" and self.per_step and self.teacher_time != "step")
                expected = (
                    "'student<-teacher' of two exits (one of the spiking twin's with per_step and teacher_time sum or mean)"
                )
                require(not own, "loss.pairs", expected=expected, got=f"{student.twin}{student.number} as its own teacher")
        if isinstance(self.supervised, tuple):
            named = [parse_exit(text) for text in self.supervised]
            require(len(set(named)) == len(named), "loss.supervised", expected="different exits", got=self.supervised)


class Exit(msgspec.Struct, frozen=True, order=True):
    """One classifier of one twin: exits count from 1, the last is the network's own end."""

    twin: Twin
    number: int


def _exit(text: str) -> Exit | None:
    twin, number = text.strip()[:3], text.strip()[3:]
    return Exit(twin, int(number)) if twin in TWINS and number.isdecimal() and int(number) >= 1 else None


def parse_weight(text: str, where: str) -> tuple[str, float]:
    """Split what an option names from its weight: `snn4*0.5`; without one it is 1 (clause DIS-11)."""
    name, star, weight = text.partition("*")
    if not star:
        return name, 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    require(0.0 <= value < math.inf, where, expected="a finite weight >= 0 after *, such as 'snn4*0.5'", got=text)
    return name, value


def parse_exit(text: str) -> Exit:
    """Read an exit such as `snn4`; its weight, if any, is `supervised_weights`' matter."""
    found = _exit(parse_weight(text, "loss.supervised")[0])
    if found is None:
        raise refuse("loss.supervised", expected="exits such as 'snn1' and 'ann4'", got=text)
    return found


def supervised(loss: Loss, exits: int) -> dict[Twin, tuple[int, ...]]:
    """The exits of each twin that learn from labels, counted from 0, ascending (clause DIS-9).

    Raises:
        SpecError: the loss names an exit that a network with this many per twin does not have.
    """
    every, last = tuple(range(exits)), (exits - 1,)
    match loss.supervised:
        case "all":
            return {"ann": every, "snn": every}
        case "last":
            return {"ann": last, "snn": last}
        case "snn_last":
            return {"ann": (), "snn": last}
        case _:
            named = sorted(parse_exit(text) for text in loss.supervised)
            for end in named:
                got = f"{end.twin}{end.number}"
                require(end.number <= exits, "loss.supervised", expected=f"exits 1 to {exits} of this network", got=got)
            return {twin: tuple(end.number - 1 for end in named if end.twin == twin) for twin in TWINS}


def supervised_weights(loss: Loss, exits: int) -> dict[Twin, tuple[float, ...]]:
    """The weights of the cross entropies of `supervised`, in its order (clause DIS-11)."""
    named: dict[tuple[Twin, int], float] = {}
    if isinstance(loss.supervised, tuple):
        for text in loss.supervised:
            end = parse_exit(text)
            named[end.twin, end.number - 1] = parse_weight(text, "loss.supervised")[1]
    return {twin: tuple(named.get((twin, i), 1.0) for i in found) for twin, found in supervised(loss, exits).items()}


def parse_pair(text: str) -> tuple[Exit, Exit]:
    """Read `student<-teacher`, for instance `snn1<-ann4`, as (student, teacher); its weight is `pair_weights`' matter."""
    name, _ = parse_weight(text, "loss.pairs")
    ends = [end for part in name.split("<-") if (end := _exit(part)) is not None]
    require(
        len(ends) == 2 and name.count("<-") == 1,
        "loss.pairs",
        expected="'student<-teacher' of two exits such as 'snn1<-ann1'",
        got=text,
    )
    return ends[0], ends[1]


def distillation_pairs(loss: Loss, exits: int) -> tuple[tuple[Exit, Exit], ...]:
    """The (student, teacher) pairs of a loss for a network with this many exits per twin.

    Raises:
        SpecError: a pair names an exit that the network does not have.
    """
    within_ann = tuple((Exit("ann", i), Exit("ann", exits)) for i in range(1, exits))
    across = tuple((Exit("snn", i), Exit("ann", i)) for i in range(1, exits + 1))
    match loss.pairs:
        case "joint":
            return within_ann + across
        case "ann_only":
            return within_ann
        case "snn_from_ann":
            return across
        case "none":
            return ()
        case _:
            pairs = tuple(parse_pair(pair) for pair in loss.pairs)
            for end in (end for pair in pairs for end in pair):
                require(
                    end.number <= exits,
                    "loss.pairs",
                    expected=f"exits 1 to {exits} of this network",
                    got=f"{end.twin}{end.number}",
                )
            return pairs


def pair_weights(loss: Loss, exits: int) -> tuple[float, ...]:
    """The weights of `distillation_pairs`, in its order (clause DIS-11)."""
    if isinstance(loss.pairs, tuple):
        return tuple(parse_weight(pair, "loss.pairs")[1] for pair in loss.pairs)
    return (1.0,) * len(distillation_pairs(loss, exits))


# --- method ------------------------------------------------------------------------------------------


class Method(Config, frozen=True, kw_only=True):
    """Everything that, with a network, fixes what is computed from parameters and a batch."""

    time_steps: int = 4
    """T, time steps per sequence, >= 1."""
    neuron: Neuron = Neuron()
    factorization: Factorization = Factorization()
    batch_norm: BatchNorm = BatchNorm()
    readout: Literal["sum", "mean"] = "sum"
    """Reduction over time of the spiking twin's logits and features (clauses OUT-*)."""
    linear_init: Literal["uniform", "fan_out"] = "uniform"
    """Initial weights of linear layers: uniform in +-1/sqrt(in), or normal with variance 2/out, as the authors draw their
    heads (clauses INI-2 and INI-6)."""
    loss: Loss = Loss()

    def _check(self) -> None:
        require(self.time_steps >= 1, "time_steps", expected="a whole number >= 1", got=self.time_steps)


# --- optimization ------------------------------------------------------------------------------------

DecayScope = Literal["all", "no_norm_bias"]
"""Weight decay on every parameter, or on all but norm scales and shifts, biases and neuron parameters."""


class SGD(Config, tag="sgd", tag_field="kind", frozen=True, kw_only=True):
    """Stochastic gradient descent with momentum (clauses OPT-1 to OPT-4)."""

    momentum: float = 0.0
    """In [0, 1); 0 keeps no buffer."""
    nesterov: bool = False
    weight_decay: float = 5e-4
    """Added to the gradient times the parameter, >= 0."""
    decay_scope: DecayScope = "all"

    def _check(self) -> None:
        _finite("optimizer.momentum", self.momentum, 0.0, 1.0, "[)")
        _finite("optimizer.weight_decay", self.weight_decay, 0.0, math.inf, "[)")
        require(not self.nesterov or self.momentum > 0, "optimizer.nesterov", expected="momentum > 0 with it", got="momentum = 0")


class _Adaptive(Config, frozen=True, kw_only=True):
    beta1: float = 0.9
    """Decay of the first moment, in [0, 1)."""
    beta2: float = 0.999
    """Decay of the second moment, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the second moment, > 0."""
    weight_decay: float = 0.0
    """>= 0; Adam adds it to the gradient, AdamW shrinks the parameter by learning_rate * weight_decay."""
    decay_scope: DecayScope = "all"

    def _check(self) -> None:
        _finite("optimizer.beta1", self.beta1, 0.0, 1.0, "[)")
        _finite("optimizer.beta2", self.beta2, 0.0, 1.0, "[)")
        _finite("optimizer.eps", self.eps, 0.0, math.inf, "()")
        _finite("optimizer.weight_decay", self.weight_decay, 0.0, math.inf, "[)")


class Adam(_Adaptive, tag="adam", tag_field="kind", frozen=True, kw_only=True):
    """Adam with weight decay in the gradient (clauses OPT-5 and OPT-6)."""


class AdamW(_Adaptive, tag="adamw", tag_field="kind", frozen=True, kw_only=True):
    """Adam with decoupled weight decay (clauses OPT-5 and OPT-7)."""


Optimizer = SGD | Adam | AdamW


class Constant(Config, tag="constant", tag_field="kind", frozen=True, kw_only=True):
    """The learning rate stays, after the warm-up."""

    warmup_epochs: float = 0.0
    """Linear rise from 0, in epochs, >= 0."""

    def _check(self) -> None:
        _finite("schedule.warmup_epochs", self.warmup_epochs, 0.0, math.inf, "[)")


class Cosine(Config, tag="cosine", tag_field="kind", frozen=True, kw_only=True):
    """Half a cosine from the learning rate to `floor` over the run (clauses SCH-*)."""

    floor: float = 0.0
    """Learning rate that the curve reaches at the end, absolute, >= 0."""
    unit: Literal["epoch", "step"] = "epoch"
    """Whether the rate changes once per epoch (the paper) or at every step."""
    warmup_epochs: float = 0.0
    """Linear rise from 0 before the cosine begins, in epochs, >= 0."""

    def _check(self) -> None:
        _finite("schedule.floor", self.floor, 0.0, math.inf, "[)")
        _finite("schedule.warmup_epochs", self.warmup_epochs, 0.0, math.inf, "[)")


Schedule = Cosine | Constant

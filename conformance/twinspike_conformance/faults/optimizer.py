"""Faults of the optimizer's step of one parameter (clauses OPT-1, OPT-5 to OPT-7); schedules are the specification's own."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_optimizer = edits_of("optimizer")

_SGD = "if isinstance(optimizer, SGD):\n        g = g + weight_decay * p\n"
_BUFFER = 'm = optimizer.momentum * slots.get("momentum", zero) + g\n'
_DIRECTION = "direction = g + optimizer.momentum * m if optimizer.nesterov else m"
_MOVE = 'return p - lr * direction, {"momentum": m}'
_FIRST = "m_hat = m / (1.0 - optimizer.beta1**step)"
_SECOND = "v_hat = v / (1.0 - optimizer.beta2**step)"
_UPDATE = "return p - lr * m_hat / (np.sqrt(v_hat) + optimizer.eps) - shrink, "
_COUPLED = "if isinstance(optimizer, Adam):\n        g = g + weight_decay * p\n"
_SHRINK = "shrink = 0.0 if isinstance(optimizer, Adam) else lr * weight_decay * p"

SGD = (
    Fault(
        "opt-sgd-decoupled",
        "OPT-1",
        "weight decay is decoupled from the gradient",
        (
            _optimizer(_SGD, "if isinstance(optimizer, SGD):\n        shrink = weight_decay * p\n"),
            _optimizer("return p - lr * g, {}", "return p - lr * g - shrink, {}"),
            _optimizer(_MOVE, _MOVE.replace("direction,", "direction - shrink,")),
        ),
    ),
    Fault(
        "opt-sgd-decay-after",
        "OPT-1",
        "weight decay is added after the momentum",
        (
            _optimizer(_BUFFER, 'm = optimizer.momentum * slots.get("momentum", zero) + (g - weight_decay * p)\n'),
            _optimizer(_DIRECTION, f"{_DIRECTION} + weight_decay * p"),
        ),
    ),
    Fault("opt-sgd-decay-missing", "OPT-1", "weight decay is ignored", (_optimizer(_SGD, "if isinstance(optimizer, SGD):\n"),)),
    Fault(
        "opt-sgd-nesterov-old",
        "OPT-1",
        "Nesterov looks ahead with the old buffer",
        (
            _optimizer(
                _DIRECTION, _DIRECTION.replace("optimizer.momentum * m", 'optimizer.momentum * slots.get("momentum", zero)')
            ),
        ),
    ),
    Fault("opt-sgd-nesterov-ignored", "OPT-1", "nesterov is ignored", (_optimizer(_DIRECTION, "direction = m"),)),
    Fault(
        "opt-sgd-rate-in-buffer",
        "OPT-1",
        "the learning rate goes into the buffer",
        (
            _optimizer(_BUFFER, _BUFFER.replace("+ g", "+ lr * g")),
            _optimizer(_DIRECTION, _DIRECTION.replace("g + ", "lr * g + ")),
            _optimizer(_MOVE, _MOVE.replace("lr * direction", "direction")),
        ),
        origin="Keras, whose velocity holds the learning rate",
    ),
    Fault(
        "opt-sgd-dampened",
        "OPT-1",
        "the gradient enters the buffer with weight 1 - momentum",
        (_optimizer(_BUFFER, _BUFFER.replace("+ g", "+ (1.0 - optimizer.momentum) * g")),),
    ),
)

ADAM = (
    Fault(
        "opt-adam-uncorrected",
        "OPT-5",
        "moments are not corrected for their start at 0",
        (_optimizer(_FIRST, "m_hat = m"), _optimizer(_SECOND, "v_hat = v")),
    ),
    Fault(
        "opt-adam-eps-inside",
        "OPT-5",
        "eps is added under the root",
        (_optimizer(_UPDATE, _UPDATE.replace("(np.sqrt(v_hat) + optimizer.eps)", "np.sqrt(v_hat + optimizer.eps)")),),
    ),
    Fault(
        "opt-adam-eps-uncorrected",
        "OPT-5",
        "eps is added before the second moment is corrected",
        (
            _optimizer(
                _UPDATE,
                _UPDATE.replace(
                    "(np.sqrt(v_hat) + optimizer.eps)", "(np.sqrt(v_hat) + optimizer.eps / np.sqrt(1.0 - optimizer.beta2**step))"
                ),
            ),
        ),
        origin="the efficient form of Kingma and Ba 2015, section 2, as TensorFlow computes it",
    ),
    Fault(
        "opt-adam-step-off-by-one",
        "OPT-5",
        "the correction counts one step too many",
        (
            _optimizer(_FIRST, _FIRST.replace("**step", "**(step + 1)")),
            _optimizer(_SECOND, _SECOND.replace("**step", "**(step + 1)")),
        ),
    ),
    Fault(
        "opt-adam-betas-swapped",
        "OPT-5",
        "the second moment decays by beta1",
        (_optimizer("v = optimizer.beta2 * ", "v = optimizer.beta1 * "),),
    ),
    Fault("opt-adam-coupled-missing", "OPT-6", "adam ignores weight decay", (_optimizer(_COUPLED, "g = 1.0 * g\n"),)),
    Fault(
        "opt-adam-as-adamw",
        "OPT-6",
        "adam decouples weight decay",
        (_optimizer(_COUPLED, "g = 1.0 * g\n"), _optimizer(_SHRINK, "shrink = lr * weight_decay * p")),
    ),
    Fault(
        "opt-adam-decay-outside-moments",
        "OPT-6",
        "adam adds weight decay after the moments",
        (
            _optimizer(_COUPLED, "g = 1.0 * g\n"),
            _optimizer(_UPDATE, "m_hat = m_hat + (weight_decay * p if isinstance(optimizer, Adam) else 0.0)\n    " + _UPDATE),
        ),
    ),
    Fault(
        "opt-adamw-as-adam",
        "OPT-7",
        "adamw adds weight decay to the gradient",
        (_optimizer(_COUPLED, "g = g + weight_decay * p\n"), _optimizer(_SHRINK, "shrink = 0.0")),
    ),
    Fault(
        "opt-adamw-without-rate",
        "OPT-7",
        "adamw shrinks by weight_decay, whatever the learning rate",
        (_optimizer(_SHRINK, _SHRINK.replace("lr * weight_decay", "weight_decay")),),
        origin="the paper's own form, Loshchilov and Hutter 2019, with schedule multiplier 1",
    ),
    Fault(
        "opt-adamw-new-parameter",
        "OPT-7",
        "adamw shrinks the parameter after it has moved",
        (
            _optimizer(
                _SHRINK, f"moved = p - lr * m_hat / (np.sqrt(v_hat) + optimizer.eps)\n    {_SHRINK.replace('* p', '* moved')}"
            ),
        ),
    ),
)

FAULTS: tuple[Fault, ...] = SGD + ADAM

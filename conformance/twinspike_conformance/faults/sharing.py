"""Faults of what the twins share and keep apart in whole networks (clauses FAC-7, FAC-8, ORT-2, ORT-3, LAY-*, BN-*).

BN-7 (initial gamma) is the specification's own; no backend answers for it.
"""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_network, _step = edits_of("network"), edits_of("step")

_COMPOSED = 'for part in ("U", f"sigma_{twin}", "V"))\n    return factorization.compose('
_ISOLATED = "isolated = method.loss.isolate_ann and layer_and_part(name)[1] in SHARED"
_ADDED = "_add(gradients, name, np.zeros_like(g) if isolated else g)"
_STATISTICS = 'tape.statistics.update({f"{name}.mean_{twin}": mean, f"{name}.var_{twin}": var})'
_ARRAYS = 'arrays = [state[f"{name}.{quantity}_{twin}"] for quantity in ("gamma", "beta", "mean", "var")]'
_DUE = "if isinstance(orthogonality, Retract) and step % orthogonality.every == 0:"
_RETRACTED = 'after[f"{name}.U"], after[f"{name}.V"] = factorization.retract(orthogonality.by, u, v)'
_STEP = "    step = int(state[STEP]) + 1\n"
_OTHER = "towards[other] = towards[other] + g if other in towards else g"
_TOWARDS = "towards[layer.input] = towards[layer.input] + d_x if layer.input in towards else d_x"
_SUM = "y = x + tape.outputs[other]"

SHARING = (
    Fault(
        "fac-copied",
        "FAC-7",
        "each twin has U and V of its own: the spiking twin's gradient never reaches the shared ones",
        (_network(_ISOLATED, 'isolated = layer_and_part(name)[1] in ("U", "V")'),),
    ),
    Fault(
        "fac-half-gradient",
        "FAC-7",
        "shared U and V get the mean of the twins' gradients",
        (
            _network(
                _ADDED,
                f'{_ADDED}\n        if layer_and_part(name)[1] in ("U", "V"):\n            gradients[name] = gradients[name] / 2',
            ),
        ),
    ),
    Fault(
        "fac-gradient-overwritten",
        "FAC-7",
        "of shared arrays the spiking twin's gradient replaces the other's",
        (_network(_ADDED, "gradients[name] = np.zeros_like(g) if isolated else g"),),
    ),
    Fault(
        "fac-sigma-shared",
        "FAC-7",
        "the spiking twin composes its kernels with sigma_ann",
        (_network(_COMPOSED, _COMPOSED.replace("sigma_{twin}", "sigma_ann")),),
    ),
    Fault(
        "fac-sigma-gradients-summed",
        "FAC-7",
        "both sigmas get the sum of their gradients",
        (
            _network(
                _ADDED,
                f"{_ADDED}\n"
                '    for name in [n for n in gradients if n.endswith(".sigma_ann")]:\n'
                '        twin = name[:-3] + "snn"\n'
                "        gradients[name] = gradients[twin] = gradients[name] + gradients[twin]",
            ),
        ),
    ),
    Fault(
        "fac-unfactored-shared",
        "FAC-8",
        "the spiking twin uses the artificial one's kernel out of scope",
        (_network('return state[f"{layer.name}.weight_{twin}"]', 'return state[f"{layer.name}.weight_ann"]'),),
    ),
    Fault(
        "fac-unfactored-gradients-summed",
        "FAC-8",
        "kernels out of scope get the sum of both twins' gradients",
        (
            _network(
                _ADDED,
                f"{_ADDED}\n"
                '    for name in [n for n in gradients if n.endswith(".weight_ann")]:\n'
                '        twin = name[:-3] + "snn"\n'
                "        gradients[name] = gradients[twin] = gradients[name] + gradients[twin]",
            ),
        ),
    ),
    Fault(
        "ort-weight-missing",
        "ORT-2",
        "the penalty joins the loss without its weight",
        (_network("penalty = penalty + orthogonality.weight * factorization", "penalty = penalty + factorization"),),
    ),
    Fault(
        "ort-gradient-missing",
        "ORT-2",
        "the penalty is reported but trains nothing",
        (_network("orthogonality.weight * d_u", "0.0 * d_u"), _network("orthogonality.weight * d_v", "0.0 * d_v")),
    ),
    Fault(
        "ort-retract-first",
        "ORT-3",
        "retraction comes at steps 1, every + 1, ...",
        (_step(_DUE, _DUE.replace("step %", "(step - 1) %")),),
    ),
    Fault("ort-retract-never", "ORT-3", "retraction never comes", (_step(_DUE, "if False:"),)),
    Fault(
        "ort-retract-resets-slots",
        "ORT-3",
        "retraction empties the slots of U and V",
        (
            _step(
                _RETRACTED,
                f"{_RETRACTED}\n"
                '            slots_of = [key for key in after if key.endswith((f"/{name}.U", f"/{name}.V"))]\n'
                "            after |= {key: 0.0 * after[key] for key in slots_of}",
            ),
        ),
    ),
    Fault(
        "ort-retract-before-step",
        "ORT-3",
        "the step starts from retracted factors and forgets to retract its own",
        (
            _step(_DUE, "if False:"),
            _step(
                _STEP,
                f"{_STEP}    form = method.factorization.orthogonality\n"
                "    if isinstance(form, Retract) and step % form.every == 0:\n"
                "        for name, (u, v) in factors(network, method, state).items():\n"
                "            u, v = factorization.retract(form.by, u, v)\n"
                '            state = {**state, f"{name}.U": u, f"{name}.V": v}\n',
            ),
        ),
    ),
    Fault(
        "lay-bias-of-ann",
        "LAY-3",
        "the shared bias learns from the artificial twin alone",
        (_network(_ISOLATED, 'isolated = name.endswith(".bias")'),),
    ),
    Fault(
        "lay-bias-gradient-last-step",
        "LAY-3",
        "the bias' gradient is the last time step's",
        (_network("np.asarray(sum(step[2] for step in steps))", "np.asarray(steps[-1][2])"),),
    ),
    Fault(
        "lay-kernel-gradient-last-step",
        "LAY-1",
        "a kernel's gradient is the last time step's",
        (
            _network(
                "_kernel_adjoint(layer, method, twin, state, sum(step[1] for step in per_step))",
                "_kernel_adjoint(layer, method, twin, state, per_step[-1][1])",
            ),
        ),
    ),
    Fault(
        "lay-add-maximum",
        "LAY-5",
        "an addition of spikes is their union",
        (_network(_SUM, f'y = np.maximum(x, tape.outputs[other]) if twin == "snn" else {_SUM[4:]}'),),
        origin="the OR of spike-element-wise residual blocks",
    ),
    Fault(
        "lay-add-halved",
        "LAY-5",
        "an addition is a mean",
        (
            _network(_SUM, f"y = ({_SUM[4:]}) / 2"),
            _network("d_x = g\n                towards", "g = g / 2\n                d_x = g\n                towards"),
        ),
    ),
    Fault(
        "lay-add-shortcut-cut",
        "LAY-5",
        "no gradient passes through the second input of an addition",
        (_network(_OTHER, _OTHER.replace("+ g", "+ 0.0 * g").replace("else g", "else 0.0 * g")),),
    ),
    Fault(
        "lay-readers-overwrite",
        "LAY-5",
        "of a layer that several read only the first reader's gradient arrives",
        (_network(_TOWARDS, "towards[layer.input] = d_x"),),
    ),
)

NORMS = (
    Fault(
        "bn-statistics-shared",
        "BN-6",
        "the spiking twin moves the artificial one's running statistics",
        (_network(_STATISTICS, _STATISTICS.replace("{twin}", "ann")),),
    ),
    Fault(
        "bn-ann-twice",
        "BN-6",
        "the artificial twin, run once more as a teacher, updates its statistics twice",
        (
            _step(
                "statistics = tape.ann.statistics | tape.snn.statistics",
                "again = forward(network, method, {**state, **tape.ann.statistics}, images, training=True)\n"
                "    statistics = again.ann.statistics | tape.snn.statistics",
            ),
        ),
    ),
    Fault(
        "bn-snn-frozen",
        "BN-6",
        "the spiking twin's running statistics stay",
        (_step("statistics = tape.ann.statistics | tape.snn.statistics", "statistics = tape.ann.statistics"),),
    ),
    Fault(
        "bn-eval-of-ann",
        "BN-6",
        "in evaluation the spiking twin uses the artificial one's running statistics",
        (
            _network(
                _ARRAYS,
                f"{_ARRAYS}\n"
                "                if not training:\n"
                '                    arrays[2:] = state[f"{name}.mean_ann"], state[f"{name}.var_ann"]',
            ),
        ),
    ),
    Fault(
        "bn-gamma-shared",
        "BN-6",
        "the spiking twin scales by the artificial one's gamma",
        (_network(_ARRAYS, f'{_ARRAYS}\n                arrays[0] = state[f"{{name}}.gamma_ann"]'),),
    ),
    Fault(
        "bn-eval-batch",
        "BN-5",
        "evaluation of a network uses the batch's statistics",
        (
            _step(
                "tape = forward(network, method, state, images, training=False)",
                "tape = forward(network, method, state, images, training=True)",
            ),
        ),
        origin="a model evaluated without eval()",
    ),
    Fault(
        "bn-snn-twice",
        "BN-6",
        "the spiking twin updates its statistics twice per batch",
        (
            _step(
                "statistics = tape.ann.statistics | tape.snn.statistics",
                "again = forward(network, method, {**state, **tape.snn.statistics}, images, training=True)\n"
                "    statistics = tape.ann.statistics | again.snn.statistics",
            ),
        ),
    ),
)

FAULTS: tuple[Fault, ...] = SHARING + NORMS

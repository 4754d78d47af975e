"""Faults of input, output, teaching and training in networks (clauses INP-*, OUT-*, DIS-6 to DIS-8, OPT-2 to OPT-4, OPT-8)."""

from __future__ import annotations

from twinspike_conformance.faults.base import Fault, edits_of

_network, _step, _optimizer = edits_of("network"), edits_of("step"), edits_of("optimizer")

_ISOLATED = "isolated = method.loss.isolate_ann and layer_and_part(name)[1] in SHARED"
_ADDED = "_add(gradients, name, np.zeros_like(g) if isolated else g)"
_ANN_FRAMES = "return np.stack([images.mean(axis=0) if network.event else images])"
_SNN_FRAMES = "return images if network.event else np.stack([images] * method.time_steps)"
_LINEAR = "y = np.stack([layers.linear(x_t, weight, bias) for x_t in x])"
_TRAINED = "if not entry.trained:\n            continue\n"
_COUNTED = "after[STEP] = np.asarray(step, dtype=np.int64)"
_CORRECT = "return np.asarray((logits.argmax(axis=-1) == labels).sum())"
_STEP = "    step = int(state[STEP]) + 1\n"

CODING = (
    Fault(
        "inp-first-step-only",
        "INP-1",
        "the image is presented at the first step, zeros after it",
        (
            _network(
                _SNN_FRAMES,
                _SNN_FRAMES.replace(
                    "[images] * method.time_steps", "[images, *(0.0 * images for _ in range(method.time_steps - 1))]"
                ),
            ),
        ),
    ),
    Fault(
        "inp-divided",
        "INP-1",
        "the image is spread over the steps: divided by T",
        (_network(_SNN_FRAMES, _SNN_FRAMES.replace("[images]", "[images / method.time_steps]")),),
    ),
    Fault(
        "inp-one-step-short",
        "INP-1",
        "the image is presented T - 1 times where T > 1",
        (_network(_SNN_FRAMES, _SNN_FRAMES.replace("* method.time_steps", "* max(1, method.time_steps - 1)")),),
    ),
    Fault(
        "inp-binary",
        "INP-1",
        "the spiking twin sees the image's signs",
        (_network(_SNN_FRAMES, _SNN_FRAMES.replace("[images]", "[(images > 0.0) * 1.0]")),),
    ),
    Fault(
        "inp-event-first-frame",
        "INP-2",
        "the artificial twin sees the first frame",
        (_network(_ANN_FRAMES, _ANN_FRAMES.replace("images.mean(axis=0)", "images[0]")),),
    ),
    Fault(
        "inp-event-sum",
        "INP-2",
        "the artificial twin sees the sum of the frames",
        (_network(_ANN_FRAMES, _ANN_FRAMES.replace("images.mean", "images.sum")),),
    ),
    Fault(
        "inp-event-reversed",
        "INP-2",
        "the spiking twin sees the frames in reverse",
        (_network(_SNN_FRAMES, _SNN_FRAMES.replace("images if", "images[::-1] if")),),
    ),
    Fault(
        "inp-event-mean",
        "INP-2",
        "the spiking twin sees the mean of the frames at every step",
        (_network(_SNN_FRAMES, _SNN_FRAMES.replace("images if", "np.broadcast_to(images.mean(axis=0), images.shape) if")),),
    ),
    Fault(
        "out-bias-once",
        "OUT-1",
        "the bias counts once instead of T times",
        (_network(_LINEAR, _LINEAR.replace("bias)", "bias / len(x))")),),
    ),
    Fault(
        "out-evaluation-last",
        "OUT-1",
        "evaluation reads the last step",
        (_step("readout(tape.snn.outputs[head], method.readout) for head", "tape.snn.outputs[head][-1] for head"),),
    ),
    Fault(
        "out-features-summed",
        "OUT-2",
        "features are summed whatever the readout",
        (
            _network('gather(tape.snn, "feature", reduced)', 'gather(tape.snn, "feature", lambda y: y.sum(axis=0))'),
            _network("layers.readout_adjoint(h, d_h[i], method.readout)", 'layers.readout_adjoint(h, d_h[i], "sum")'),
        ),
    ),
    Fault(
        "out-last-of-equals",
        "OUT-3",
        "of equal logits the last wins",
        (
            _step(
                _CORRECT, _CORRECT.replace("logits.argmax(axis=-1)", "(logits.shape[-1] - 1 - logits[..., ::-1].argmax(axis=-1))")
            ),
        ),
    ),
    Fault(
        "out-first-exit",
        "OUT-3",
        "predictions are the first exit's",
        (_step("head = network.exits[-1].head", "head = network.exits[0].head"),),
    ),
    Fault(
        "out-last-step-prediction",
        "OUT-3",
        "predictions are the last time step's",
        (
            _step(
                "    spikes = [neurons.s for neurons",
                "    reduced = tape.snn.outputs[head][-1]\n    spikes = [neurons.s for neurons",
            ),
        ),
    ),
    Fault(
        "out-any-exit",
        "OUT-3",
        "a prediction counts as right where the logits' mean over exits is",
        (
            _step(
                "correct_snn=_correct(reduced, labels)",
                "correct_snn=_correct(sum(readout(tape.snn.outputs[e.head], method.readout) for e in network.exits), labels)",
            ),
        ),
    ),
)

TEACHING = (
    Fault(
        "dis-snn-teaches",
        "DIS-6",
        "the spiking twin's gradient leaks into the teacher's own parameters",
        (
            _network(
                "_add(seeds_ann, exit_.head, d_a[i][None])",
                "_add(seeds_ann, exit_.head, d_a[i][None] - 0.1 * (d_z_steps.sum(axis=0) / len(d_z_steps))[None])",
            ),
        ),
    ),
    Fault(
        "dis-features-seeded",
        "DIS-6",
        "the artificial twin's features are pulled towards the spiking twin's",
        (_network("_add(seeds_ann, exit_.feature, d_f[i][None])", "_add(seeds_ann, exit_.feature, -d_h[i][None])"),),
    ),
    Fault("dis-isolation-ignored", "DIS-7", "isolate_ann is ignored", (_network(_ISOLATED, "isolated = False"),)),
    Fault(
        "dis-isolation-all",
        "DIS-7",
        "isolate_ann stops the spiking twin's own parameters too",
        (_network(_ISOLATED, "isolated = method.loss.isolate_ann"),),
    ),
    Fault(
        "dis-isolation-forgets-bias",
        "DIS-7",
        "isolate_ann forgets the shared bias",
        (_network('SHARED = ("U", "V", "bias")', 'SHARED = ("U", "V")'),),
    ),
    Fault(
        "dis-isolation-both",
        "DIS-7",
        "isolate_ann drops both twins' gradients of shared arrays",
        (_network(_ADDED, "gradients[name] = np.zeros_like(g) if isolated else gradients.get(name, 0.0) + g"),),
    ),
    Fault(
        "dis-per-step-ignored",
        "DIS-8",
        "per_step is ignored: the loss sees reduced logits",
        (_network("if method.loss.per_step:", "if False:"), _network("d_z[:, i] if method.loss.per_step else ", "")),
    ),
    Fault(
        "dis-per-step-features",
        "DIS-8",
        "with per_step the feature term reads the last step",
        (
            _network(
                'features_snn=gather(tape.snn, "feature", reduced)',
                'features_snn=gather(tape.snn, "feature", (lambda y: y[-1]) if method.loss.per_step else reduced)',
            ),
        ),
    ),
)

TRAINING = (
    Fault(
        "opt-shared-moves-twice",
        "OPT-2",
        "shared factors move twice, once per twin",
        (
            _step(
                '        after |= {f"optimizer/{slot}/{entry.name}"',
                '        if entry.kind == "factor":\n'
                "            after[entry.name], moved = optimizer_step(\n"
                "                optimizer, after[entry.name], by_name[entry.name], learning_rate, step, moved\n"
                "            )\n"
                '        after |= {f"optimizer/{slot}/{entry.name}"',
            ),
        ),
    ),
    Fault(
        "opt-twins-in-turn",
        "OPT-2",
        "the spiking twin's gradients are taken after the shared arrays have moved",
        (
            _step(
                _STEP,
                '    shared = [name for name in by_name if name.endswith((".U", ".V", ".bias"))]\n'
                "    ahead = {**state, **{name: state[name] - learning_rate * by_name[name] for name in shared}}\n"
                "    late, _, _ = gradients(network, method, ahead, images, labels)\n"
                '    by_name = {n: late[n] if n.endswith("_snn") else g for n, g in by_name.items()}\n' + _STEP,
            ),
        ),
    ),
    Fault(
        "opt-sigma-frozen",
        "OPT-2",
        "sigma does not move",
        (_step(_TRAINED, 'if not entry.trained or entry.kind == "sigma":\n            continue\n'),),
    ),
    Fault(
        "opt-counter-stays",
        "OPT-3",
        "the counter stays",
        (_step(_COUNTED, "after[STEP] = np.asarray(step - 1, dtype=np.int64)"),),
    ),
    Fault(
        "opt-counter-samples",
        "OPT-3",
        "the counter counts samples",
        (_step(_COUNTED, "after[STEP] = np.asarray(step - 1 + len(labels), dtype=np.int64)"),),
    ),
    Fault(
        "opt-counter-from-one",
        "OPT-3",
        "a first step starts at 1 already",
        (_step(_COUNTED, "after[STEP] = np.asarray(step + (step == 1), dtype=np.int64)"),),
    ),
    Fault(
        "opt-decay-everywhere",
        "OPT-4",
        "no_norm_bias is ignored: norms and biases decay",
        (_step("decays=decays(entry, optimizer)", "decays=True"),),
    ),
    Fault(
        "opt-sigma-undecayed",
        "OPT-4",
        "no_norm_bias excludes sigma as well",
        (
            _step(
                "decays=decays(entry, optimizer)",
                'decays=decays(entry, optimizer) and (optimizer.decay_scope == "all" or entry.kind != "sigma")',
            ),
        ),
    ),
    Fault(
        "opt-vectors-undecayed",
        "OPT-4",
        "weight decay leaves out whatever has one axis, even where all decays",
        (_step("decays=decays(entry, optimizer)", "decays=decays(entry, optimizer) and len(entry.shape) > 1"),),
        origin="the common rule `p.ndim <= 1` for parameters without weight decay",
    ),
    Fault(
        "opt-bias-decayed",
        "OPT-4",
        "no_norm_bias excludes norms but not biases",
        (_step("decays=decays(entry, optimizer)", 'decays=decays(entry, optimizer) or entry.kind == "bias"'),),
    ),
)

_TAKEN = "state[entry.name], by_name[entry.name],"
_PROJECTED = "after[entry.name] = projected(p, domain(entry, method))"

DOMAINS = (
    Fault("opt-neuron-free", "OPT-8", "learned quantities may leave their domain", (_step(_PROJECTED, "after[entry.name] = p"),)),
    Fault(
        "opt-neuron-gradient",
        "OPT-8",
        "the gradient is clipped to the domain, not the parameter",
        (
            _step(_PROJECTED, "after[entry.name] = p"),
            _step(_TAKEN, "state[entry.name], projected(by_name[entry.name], domain(entry, method)),"),
        ),
    ),
    Fault(
        "opt-neuron-late",
        "OPT-8",
        "the projection comes before the next update, not after this one",
        (
            _step(_PROJECTED, "after[entry.name] = p"),
            _step(_TAKEN, "projected(state[entry.name], domain(entry, method)), by_name[entry.name],"),
        ),
    ),
    Fault(
        "opt-neuron-decayed-alone",
        "OPT-8",
        "only parameters that weight decay applies to are projected",
        (_step(_PROJECTED, "after[entry.name] = projected(p, domain(entry, method) if decays(entry, optimizer) else None)"),),
    ),
    Fault(
        "opt-neuron-layers-alone",
        "OPT-8",
        "quantities of a layer are projected, those of its channels are not",
        (_step(_PROJECTED, "after[entry.name] = projected(p, None if entry.shape else domain(entry, method))"),),
    ),
    Fault(
        "opt-decay-alone",
        "OPT-8",
        "decays are projected, thresholds are not",
        (_step(_PROJECTED, _PROJECTED[:-1] + ' if entry.name.endswith("decay") else None)'),),
    ),
    Fault(
        "opt-threshold-alone",
        "OPT-8",
        "thresholds are projected, decays are not",
        (_step(_PROJECTED, _PROJECTED[:-1] + ' if entry.name.endswith("threshold") else None)'),),
    ),
    Fault(
        "opt-decay-above",
        "OPT-8",
        "a decay may grow above 1",
        (_optimizer("np.clip(p, *domain)", "np.maximum(p, domain[0])"),),
    ),
    Fault(
        "opt-decay-below",
        "OPT-8",
        "a decay may fall below 0",
        (_optimizer("np.clip(p, *domain)", "np.clip(p, domain[0] if domain[1] > 1.0 else -np.inf, domain[1])"),),
    ),
    Fault(
        "opt-threshold-zero",
        "OPT-8",
        "a threshold may fall to 0",
        (_optimizer("np.clip(p, *domain)", "np.clip(p, 0.0, domain[1])"),),
    ),
    Fault(
        "opt-neuron-slots",
        "OPT-8",
        "the slots of what was projected start again",
        (
            _step(
                _PROJECTED,
                _PROJECTED + "\n        moved = {k: np.where(after[entry.name] == p, v, 0.0) for k, v in moved.items()}",
            ),
        ),
    ),
)
"""Learned quantities of the neuron and the interval that they must stay in."""

FAULTS: tuple[Fault, ...] = CODING + TEACHING + TRAINING + DOMAINS

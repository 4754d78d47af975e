"""The normative clauses: what an implementation MUST and MAY do, as data that docs and conformance read.

A clause is numbered once and never renumbered; one that is WITHDRAWN keeps its number, demands nothing and
says what it was. Symbols are those of the configs: x current, u potential
before and v after reset, s spike, h surrogate, T time steps, B batch, K classes, (.) the config's field.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Level = Literal["MUST", "MAY", "UNDEFINED", "WITHDRAWN"]


class Clause(msgspec.Struct, frozen=True):
    """One numbered sentence of the specification."""

    id: str
    level: Level
    text: str


CHAPTERS: dict[str, str] = {
    "LIF": "Neuron",
    "SUR": "Surrogate derivatives",
    "FAC": "Weight factorization",
    "ORT": "Orthogonality",
    "LAY": "Layers",
    "BN": "Batch normalization",
    "INP": "Input",
    "OUT": "Readout",
    "DIS": "Loss and self-distillation",
    "OPT": "Optimizers",
    "SCH": "Learning rate",
    "INI": "Initial values",
    "RND": "Random numbers",
    "PRE": "Precision",
}
"""Prefix of a clause -> title of its chapter."""

CLAUSES: tuple[Clause, ...] = (
    # Neuron
    Clause("LIF-1", "MUST", "Charge: u[t] = decay * v[t-1] + x[t]; with decay_input, u[t] = decay * v[t-1] + (1 - decay) * x[t]."),
    Clause("LIF-2", "MUST", "Fire: s[t] is exactly 1 where u[t] >= threshold and exactly 0 elsewhere; equality fires."),
    Clause("LIF-3", "MUST", "Hard reset: v[t] = (1 - s[t]) * u[t] + s[t] * v_reset, at the same step as the spike."),
    Clause("LIF-4", "MUST", "Soft reset: v[t] = u[t] - s[t] * threshold."),
    Clause("LIF-5", "MUST", "The state before the first step is 0 unless given; the state after the last step is returned, and a sequence split at any step with its state carried over gives the results of the whole."),
    Clause("LIF-6", "MUST", "Backward: ds/du = h(u - threshold), and the reset is differentiated through the spike: d[t] = (g[t] + e[t+1] * r[t]) * h + e[t+1] * k[t], where e is the gradient of v, r = v_reset - u and k = 1 - s (hard) or r = -threshold and k = 1 (soft), and e[t] = decay * d[t]."),
    Clause("LIF-7", "MUST", "With detach_reset the term r[t] is dropped; k[t] stays."),
    Clause("LIF-8", "MUST", "The current's gradient is d[t], times 1 - decay with decay_input; the initial state's is decay * d[1]."),
    Clause("LIF-9", "MUST", "A learned decay is used as it is; its gradient is the sum of d[t] * v[t-1], with decay_input of d[t] * (v[t-1] - x[t]), over steps, batch and the entries that share it."),
    Clause("LIF-10", "MUST", "A learned threshold is used as it is; its gradient is the sum of -(g[t] + e[t+1] r[t]) h, and with soft reset of -e[t+1] s[t] in addition, r dropped where detached."),
    Clause("LIF-11", "MAY", "The multiply-add of the charge may be fused; subnormal numbers may be flushed to zero."),
    Clause("LIF-12", "UNDEFINED", "Currents, states or learned quantities that are NaN or infinite; a learned decay outside [0, 1] or threshold <= 0."),
    # Surrogate derivatives
    Clause("SUR-1", "MUST", "A surrogate h is a function of z = u - threshold, even, >= 0, and integrates to 1 over z; it is computed to a few roundings of its own value, also where it is small."),
    Clause("SUR-2", "MUST", "rectangle: h = 1/width where |z| < width/2, strictly, and 0 elsewhere."),
    Clause("SUR-3", "MUST", "triangle: h = max(0, 1 - |z|/width)/width."),
    Clause("SUR-4", "MUST", "sigmoid: h = slope q (1 - q), q = 1/(1 + exp(-slope z)); no overflow at any finite z."),
    Clause("SUR-5", "MUST", "arctan: h = (slope/2)/(1 + (pi slope z/2)^2)."),
    Clause("SUR-6", "MUST", "fast_sigmoid: h = (slope/2)/(1 + slope |z|)^2."),
    Clause("SUR-7", "MUST", "tanh: h = (slope/2)(1 - tanh(slope z)^2); no overflow at any finite z."),
    # Weight factorization
    Clause("FAC-1", "MUST", "factorization.scope decides which layers are factored: all_convs, no_stem (all but the stem), backbone (all but branches), with_heads (every convolution and linear layer), none."),
    Clause("FAC-2", "MUST", "per_position: the matrix of position (i, j) is kernel[:, :, i, j], out x in; out_by_rest: the matrix is the kernel reshaped in row-major order to out x (in kh kw)."),
    Clause("FAC-3", "MUST", "A kernel is factored by singular values: residual U diag(sigma) V - W, orthonormal columns of U and rows of V, sigma >= 0 and descending, truncated to rank r with the least error. A kernel with NaN or infinity is refused."),
    Clause("FAC-4", "MUST", "Gauge of initial values: in each column of U the entry of largest magnitude, the first of equals, is positive."),
    Clause("FAC-5", "MUST", "rank: full is min(out, in) of the matrix; a whole number is cut at that; a fraction is the smallest rank that keeps that share of the sum of squared singular values at every position, whatever the scale of the kernel."),
    Clause("FAC-6", "MUST", "compose: W = U diag(sigma) V per matrix, taken back to (out, in, kh, kw)."),
    Clause("FAC-7", "MUST", "U and V are one array each, shared by the twins: their gradient is the sum of both twins' gradients. sigma_ann and sigma_snn are separate and start equal."),
    Clause("FAC-8", "MUST", "A layer out of scope has one kernel per twin, both starting at the same value, and shares nothing but a bias."),
    Clause("FAC-9", "WITHDRAWN", "Was an option to read the row-major kernel (out, in, kh, kw) as (kh, kw, out, in) without permuting; it reproduced nothing, and FAC-2 holds always."),
    Clause("FAC-10", "UNDEFINED", "The signs of singular pairs and the basis of repeated singular values, other than by FAC-4; gradients of factorize."),
    # Orthogonality
    Clause("ORT-1", "MUST", "The deviation of a factored layer is the largest of |U'U - I| and |VV' - I| over positions and entries."),
    Clause("ORT-2", "MUST", "penalty: weight times the sum over factored layers and positions of |U'U - I|^2 + |VV' - I|^2 (squared Frobenius norms) joins the loss."),
    Clause("ORT-3", "MUST", "retract: after optimizer steps every, 2 every, ... U and V are replaced by their polar factor or by Q with a positive diagonal of R; sigma and optimizer slots stay. A matrix with NaN or infinity is refused by the operation, and becomes all NaN in a training step, which ends as any other."),
    # Layers
    Clause("LAY-1", "MUST", "conv: cross-correlation with zero padding on all sides, no bias; (B, C, H, W) and kernel (out, in, kh, kw)."),
    Clause("LAY-2", "MUST", "avg_pool: mean over kernel x kernel windows without padding; global_pool: mean over H and W."),
    Clause("LAY-3", "MUST", "linear: weight x + bias; the bias is one array shared by the twins."),
    Clause("LAY-4", "MUST", "The artificial twin's activation is max(0, x), with derivative 0 at x <= 0."),
    Clause("LAY-5", "MUST", "An add layer sums its two inputs; the activation of a residual block follows the addition."),
    # Batch normalization
    Clause("BN-1", "MUST", "Training: y = gamma (x - mean)/sqrt(var + eps) + beta with the mean and the biased variance over batch and space of each channel; gradients pass through mean and variance."),
    Clause("BN-2", "MUST", "per_step: each time step is normalized by its own statistics, and the running statistics are updated once per step, in the order of time."),
    Clause("BN-3", "MUST", "folded: all T B samples of the sequence are normalized together, and the running statistics are updated once."),
    Clause("BN-4", "MUST", "running = (1 - momentum) running + momentum new, with the unbiased variance n/(n-1), n values per channel."),
    Clause("BN-5", "MUST", "Evaluation: y = gamma (x - running mean)/sqrt(running var + eps) + beta at every step; nothing is updated."),
    Clause("BN-6", "MUST", "Each twin has its own gamma, beta and running statistics; one training step updates each twin's once per batch (artificial) or as above (spiking)."),
    Clause("BN-7", "MUST", "gamma_init = threshold starts the spiking twin's gamma at the threshold; else all gammas start at 1, betas and means at 0, variances at 1."),
    Clause("BN-8", "UNDEFINED", "Training with a single value per channel (n = 1)."),
    # Input
    Clause("INP-1", "MUST", "Static input (B, C, H, W): the image is presented unchanged at each of the T steps to the spiking twin, and once to the artificial twin."),
    Clause("INP-2", "MUST", "Event input (T, B, C, H, W): frame t is the spiking twin's input at step t; the artificial twin sees the mean of the T frames."),
    # Readout
    Clause("OUT-1", "MUST", "readout sum: logits and features of the spiking twin are sums over the T steps, so the bias counts T times."),
    Clause("OUT-2", "MUST", "readout mean: they are means over the T steps."),
    Clause("OUT-3", "MUST", "Predictions are made from the main exit's reduced logits; the first of equal maxima wins."),
    # Loss and self-distillation
    Clause("DIS-1", "MUST", "total = (1 - alpha) sum_i [CE(a_i, y) + CE(z_i, y)] + alpha tau^2 sum_pairs KD(student <- teacher) + beta sum_i F(h_i, f_i), a and f the artificial, z and h the spiking twin's logits and features at exit i."),
    Clause("DIS-2", "MUST", "CE is the mean over the batch of -log softmax(logits)[label], stable for any finite logits."),
    Clause("DIS-3", "MUST", "KD form ce: -mean_batch sum_class softmax(teacher/tau) log_softmax(student/tau); form kl: that minus the same with the teacher in the student's place."),
    Clause("DIS-4", "MUST", "Presets: joint = ann_i<-ann_n for i < n and snn_i<-ann_i for all i; ann_only the former; snn_from_ann the latter; none."),
    Clause("DIS-5", "MUST", "F is the sum of squared differences over batch and channels; batch_mean divides by B, mean by B times channels."),
    Clause("DIS-6", "MUST", "With detach_teacher (the default) teacher logits, and the artificial twin's features in F, pass no gradient; without it they do."),
    Clause("DIS-7", "MUST", "With isolate_ann the spiking twin's gradient into shared U, V and biases is dropped; its own parameters' gradients stay."),
    Clause("DIS-8", "MUST", "per_step: CE and KD of spiking logits are averages over the T steps of the loss of that step's unreduced logits, artificial ones being equal at all steps; F stays on reduced features. The operation joint_loss averages over the S slices that it is given."),
    # Optimizers
    Clause("OPT-1", "MUST", "SGD: g' = g + weight_decay p; with momentum m = momentum m + g', from m = 0, and the direction is m, or g' + momentum m with nesterov; p = p - lr direction. The learning rate stays outside the buffer."),
    Clause("OPT-2", "MUST", "Every gradient is taken at the parameters before the step, and every parameter moves once."),
    Clause("OPT-3", "MUST", "The counter optimizer/step grows by one per step, from 0; the operation optimizer_step takes its value after the step, n from 1, and applies weight decay always."),
    Clause("OPT-4", "MUST", "decay_scope no_norm_bias: no weight decay on norm scales and shifts, biases and neuron parameters."),
    Clause("OPT-5", "MUST", "Adam: m = beta1 m + (1 - beta1) g', v = beta2 v + (1 - beta2) g'^2, p = p - lr (m/(1 - beta1^n))/(sqrt(v/(1 - beta2^n)) + eps) at step n from 1."),
    Clause("OPT-6", "MUST", "adam: g' = g + weight_decay p."),
    Clause("OPT-7", "MUST", "adamw: g' = g, and p shrinks by lr weight_decay p (old p) in the same step."),
    # Learning rate
    Clause("SCH-1", "MUST", "cosine: floor + (lr - floor)(1 + cos(pi e/E))/2 at epoch e of E counted from 0 after the warm-up; unit step counts in fractions of an epoch."),
    Clause("SCH-2", "MUST", "Warm-up: lr n/(warmup_epochs steps_per_epoch) at step n counted from 1, never above lr."),
    Clause("SCH-3", "MUST", "The rate is computed in float64 on the host and handed to the backend."),
    # Initial values
    Clause("INI-1", "MUST", "Initial values are float64, drawn by streams keyed by (seed, init, 0, 2 i) for the kernel and 2 i + 1 for the bias of layer i, counted from 0 over all layers; backends cast them."),
    Clause("INI-2", "MUST", "Convolutions: normal with variance 2/(out kh kw). Linear layers: weight and bias uniform in +-1/sqrt(in)."),
    Clause("INI-3", "MUST", "Learned neuron quantities start at their config's value; slots and counter at 0."),
    Clause("INI-4", "MUST", "Where the rank is an energy fraction, every seed has the rank of the kernel drawn with seed 0, so that shapes depend on the configs alone."),
    # Random numbers
    Clause("RND-1", "MUST", "A stream is Philox 4x64 with key (seed, purpose) and a counter that starts at (0, 0, epoch, index), lowest word first, and grows by one before each block of four words, so that the first block is that of (1, 0, epoch, index); purposes init 1, order 2, augment 3, split 4."),
    Clause("RND-2", "MUST", "uniform = floor(word/2^11) 2^-53; integers below n = floor(uniform n); permutation = stable order of raw words; normal = Box-Muller, cosines before sines."),
    # Precision
    Clause("PRE-1", "MUST", "f64 and f32-ieee: every operation in that format, products included (no TF32)."),
    Clause("PRE-2", "MUST", "bf16-mixed: operands and results of convolutions and what layers hand on are bfloat16, accumulated in float32; parameters, composed kernels before their cast, statistics, norms, potentials, readout, heads, losses, gradients of parameters and the optimizer are float32. A network's input, pooled features and hidden linear layers count as handed on; an operation asked for by itself rounds the operands and the result of convolutions and follows its input's format else."),
    Clause("PRE-3", "MUST", "tf32: as f32-ieee, but operands of products may be rounded to 11 significant bits."),
    Clause("PRE-4", "MUST", "Results are on the device asked for; inputs are never modified."),
    Clause("PRE-5", "MAY", "bf16-mixed: the gradient of a composed kernel may be rounded to bfloat16 where it leaves a convolution."),
    Clause("PRE-6", "MAY", "bf16-mixed: gradients that layers hand back may be float32 or bfloat16; as operands of a convolution's gradients they are bfloat16."),
)

BY_ID: dict[str, Clause] = {clause.id: clause for clause in CLAUSES}

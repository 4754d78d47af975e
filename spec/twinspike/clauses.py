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
    "DEV": "Many devices",
    "ENE": "Counts of inference",
}
"""Prefix of a clause -> title of its chapter."""

CLAUSES: tuple[Clause, ...] = (
    # Neuron
    Clause("LIF-1", "MUST", "Charge: u[t] = decay * v[t-1] + x[t]; with decay_input, u[t] = decay * v[t-1] + (1 - decay) * x[t]."),
    Clause("LIF-2", "MUST", "Fire: s[t] is exactly 1 where u[t] >= threshold and exactly 0 elsewhere; equality fires."),
    Clause("LIF-3", "MUST", "Hard reset: v[t] = (1 - s[t]) * u[t] + s[t] * v_reset, at the same step as the spike."),
    Clause("LIF-4", "MUST", "Soft reset: v[t] = u[t] - s[t] * threshold."),
    Clause("LIF-5", "MUST", "The state before the first step is 0 unless given; the state after the last step, v[T], after its reset, is returned, and a sequence split at any step with its state carried over gives the results of the whole."),
    Clause("LIF-6", "MUST", "Backward, from step T to step 1: ds/du = h(u - threshold), and the reset is differentiated through the spike: d[t] = (g[t] + e[t+1] r[t]) h(u[t] - threshold) + e[t+1] k[t], where g[t] and d[t] are the gradients of s[t] and u[t], and e[t+1] that of v[t]: e[T+1] is what the caller gives for the returned state, 0 if nothing, and e[t] = decay * d[t]; r[t] = v_reset - u[t] and k[t] = 1 - s[t] (hard) or r[t] = -threshold and k[t] = 1 (soft)."),
    Clause("LIF-7", "MUST", "With detach_reset the term r[t] is dropped; k[t] stays."),
    Clause("LIF-8", "MUST", "The current's gradient is d[t], times 1 - decay with decay_input; the initial state's is e[1] = decay * d[1]."),
    Clause("LIF-9", "MUST", "A learned decay is used as it is; its gradient is the sum of d[t] * v[t-1], with decay_input of d[t] * (v[t-1] - x[t]), over steps, batch and the entries that share it."),
    Clause("LIF-10", "MUST", "A learned threshold is used as it is; its gradient is the sum of -(g[t] + e[t+1] r[t]) h, and with soft reset of -e[t+1] s[t] in addition, r dropped where detached."),
    Clause("LIF-11", "MAY", "The multiply-add of the charge may be fused; subnormal numbers may be flushed to zero."),
    Clause("LIF-12", "UNDEFINED", "Currents, states or learned quantities that are NaN or infinite; a given decay outside [0, 1] or threshold <= 0, which no training comes to (OPT-8)."),
    # Surrogate derivatives
    Clause("SUR-1", "MUST", "A surrogate h is a function of z = u - threshold, even, >= 0, and integrates to 1 over z; at z as it was rounded h is off by no more than 12 roundings of 1/width (rectangle, triangle), or 32 + 10 slope |z| roundings of h itself (the others), also where h is small; below the format's normal numbers it may be 0."),
    Clause("SUR-2", "MUST", "rectangle: h = 1/width where |z| < width/2, strictly, and 0 elsewhere."),
    Clause("SUR-3", "MUST", "triangle: h = max(0, 1 - |z|/width)/width."),
    Clause("SUR-4", "MUST", "sigmoid: h = slope q (1 - q), q = 1/(1 + exp(-slope z)); no overflow at any finite z."),
    Clause("SUR-5", "MUST", "arctan: h = (slope/2)/(1 + (pi slope z/2)^2)."),
    Clause("SUR-6", "MUST", "fast_sigmoid: h = (slope/2)/(1 + slope |z|)^2."),
    Clause("SUR-7", "MUST", "tanh: h = (slope/2)(1 - tanh(slope z)^2); no overflow at any finite z."),
    # Weight factorization
    Clause("FAC-1", "MUST", "factorization.scope decides which layers are factored: all_convs (every convolution and no linear layer), no_stem (those but the convolutions of part stem), backbone (those but the convolutions of part branch), with_heads (every convolution and every linear layer, hidden ones and heads alike), none."),
    Clause("FAC-2", "MUST", "per_position: the matrix of position (i, j) is kernel[:, :, i, j], out x in; out_by_rest: the matrix is the kernel reshaped in row-major order to out x (in kh kw). A linear layer's weight, out x in, is its own single matrix under either."),
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
    Clause("ORT-3", "MUST", "retract: after optimizer steps every, 2 every, ... (counted as optimizer/step is after the step) A = U and A = V' of every matrix are replaced by the polar factor A (A'A)^(-1/2), or by Q of A = Q R with a positive diagonal of R; sigma and optimizer slots stay. A matrix with NaN or infinity is refused by the operation, and becomes all NaN in a training step, which ends as any other."),
    Clause("ORT-4", "UNDEFINED", "What retract makes of U with linearly dependent columns or V with linearly dependent rows, to working precision: neither factor is unique there."),
    # Layers
    Clause("LAY-1", "MUST", "conv: cross-correlation with zero padding on all sides, no bias; x (B, C, H, W) and kernel (out, C, kh, kw) give y (B, out, H', W'), H' = floor((H + 2 padding - kh)/stride) + 1 and W' likewise; y[i, j] is the sum of x[i stride + p - padding, j stride + q - padding] kernel[p, q] over p, q and C, x being 0 outside."),
    Clause("LAY-2", "MUST", "avg_pool: mean over kernel x kernel windows without padding, the first at row and column 0 and each next one stride further, H' = floor((H - kernel)/stride) + 1 and W' likewise, so that rows and columns which fill no window are dropped; global_pool: mean over H and W."),
    Clause("LAY-3", "MUST", "linear: weight x + bias; the bias is one array shared by the twins."),
    Clause("LAY-4", "MUST", "The artificial twin's activation is max(0, x), with derivative 0 at x <= 0."),
    Clause("LAY-5", "MUST", "An add layer sums its two inputs; the activation of a residual block follows the addition."),
    # Batch normalization
    Clause("BN-1", "MUST", "Training: y = gamma (x - mean)/sqrt(var + eps) + beta with the mean and the biased variance over batch and space of each channel; gradients pass through mean and variance."),
    Clause("BN-2", "MUST", "per_step: each time step is normalized by its own statistics, and the running statistics are updated once per step, in the order of time."),
    Clause("BN-3", "MUST", "folded: all T B samples of the sequence are normalized together, and the running statistics are updated once."),
    Clause("BN-4", "MUST", "running = (1 - momentum) running + momentum new, with the unbiased variance n/(n-1), n values per channel; 1 - momentum is taken before it is rounded to the format."),
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
    Clause("DIS-9", "MUST", "supervised: the cross entropies of DIS-1 are those of all exits (all), of each twin's last (last), of the spiking twin's last (snn_last), or of the exits listed; the others' join neither the loss nor what is reported of it. Distillation and features are those of all exits."),
    Clause("DIS-10", "MUST", "label_smoothing e: each cross entropy of DIS-1 is (1 - e) times that of DIS-2 plus e times the mean over batch and classes of -log softmax(logits), of both twins and at every slice, in the loss and in what is reported of it; distillation is not smoothed, nor the operation cross_entropy."),
    Clause("DIS-11", "MUST", "An exit of supervised written with a weight, 'snn4*0.5', has its cross entropy multiplied by it, and a pair of pairs, 'snn1<-ann1*2', its KD, in the loss and in what is reported of it; without one the weight is 1, and no sum of weights divides."),
    Clause("DIS-12", "MUST", "teacher_time: where the loss sees S slices, the logits with which an exit of the spiking twin teaches are those of the student's slice (step), or at every slice the sum (sum) or the mean (mean) of its S slices; without detach_teacher their gradient reaches all of them. An exit may teach itself where it is not step and the loss is per_step. Artificial teachers are the same at every slice."),
    Clause("DIS-13", "MUST", "mse_weight l and mse_target c: each cross entropy of the spiking twin, smoothed as DIS-10 says and not yet weighted by DIS-11, becomes (1 - l) times it plus l times the mean over batch and classes of (logit - c)^2, at every slice, in the loss and in what is reported of it."),
    # Optimizers
    Clause("OPT-1", "MUST", "SGD: g' = g + weight_decay p; with momentum m = momentum m + g', from m = 0, and the direction is m, or g' + momentum m with nesterov; p = p - lr direction. The learning rate stays outside the buffer."),
    Clause("OPT-2", "MUST", "Every gradient is taken at the parameters before the step, and every parameter moves once."),
    Clause("OPT-3", "MUST", "The counter optimizer/step grows by one per step, from 0; the operation optimizer_step takes its value after the step, n from 1, and applies weight decay always."),
    Clause("OPT-4", "MUST", "decay_scope no_norm_bias: no weight decay on norm scales and shifts, biases and neuron parameters."),
    Clause("OPT-5", "MUST", "Adam: m = beta1 m + (1 - beta1) g', v = beta2 v + (1 - beta2) g'^2, p = p - lr (m/(1 - beta1^n))/(sqrt(v/(1 - beta2^n)) + eps) at step n from 1."),
    Clause("OPT-6", "MUST", "adam: g' = g + weight_decay p."),
    Clause("OPT-7", "MUST", "adamw: g' = g, and p shrinks by lr weight_decay p (old p) in the same step."),
    Clause("OPT-8", "MUST", "After its update, before the next step, a learned decay is projected onto [0, 1] and a learned threshold onto [z + (threshold - z)/1024, infinity), z = max(0, v_reset), threshold and v_reset those of the config: what is below the interval becomes its least number, rounded to the format of the parameter, what is above its largest, and all else stays to the bit. Gradient and slots are not touched, and the operation optimizer_step projects nothing."),
    # Learning rate
    Clause("SCH-1", "MUST", "cosine: floor + (lr - floor)(1 + cos(pi e/E))/2 from where the warm-up ends, with E = epochs - warmup_epochs and e = max(0, epoch - warmup_epochs), epoch counted from 0; unit step puts epoch + step/steps_per_epoch for epoch, step counted from 0 within its epoch. The floor is the value at e = E, which no step has."),
    Clause("SCH-2", "MUST", "Warm-up, while epoch + step/steps_per_epoch < warmup_epochs: lr n/(warmup_epochs steps_per_epoch) at step n of the run counted from 1, never above lr. A constant schedule is lr afterwards."),
    Clause("SCH-3", "MUST", "The rate is computed in float64 on the host and handed to the backend."),
    # Initial values
    Clause("INI-1", "MUST", "Initial values are float64, drawn by streams keyed by (seed, init, 0, 2 i) for the kernel and 2 i + 1 for the bias of layer i, counted from 0 over all layers; backends cast them."),
    Clause("INI-2", "MUST", "Convolutions: normals times sqrt(2/(out kh kw)). Linear layers: weight and bias (2 uniform - 1)/sqrt(in). Draws fill arrays in row-major order of (out, in, kh, kw), (out, in) and (out,), whatever the layout in which a backend keeps them."),
    Clause("INI-3", "MUST", "Learned neuron quantities start at their config's value; slots and counter at 0."),
    Clause("INI-4", "MUST", "Where the rank is an energy fraction, every seed has the rank of the kernel drawn with seed 0, so that shapes depend on the configs alone."),
    Clause("INI-5", "MUST", "Names and shapes of a state: LAYER.U (kh, kw, out, r), LAYER.sigma_ann and LAYER.sigma_snn (kh, kw, r) and LAYER.V (kh, kw, r, in) of a factored layer, without the positions out_by_rest, where in is in kh kw, and of a linear layer; LAYER.weight_ann and LAYER.weight_snn of another, (out, in, kh, kw) or (out, in); LAYER.bias (out,) of a linear layer; LAYER.gamma_TWIN, beta_TWIN, mean_TWIN and var_TWIN (C,) of a norm, TWIN ann and snn; LAYER.decay and LAYER.threshold where learned, () by layer and (C,) by channel. Per parameter NAME optimizer/momentum/NAME (SGD with momentum > 0) or optimizer/m/NAME and optimizer/v/NAME (Adam, AdamW), shaped like it, and the counter optimizer/step, (), a whole number."),
    Clause("INI-6", "MUST", "linear_init fan_out: the weights of linear layers are normals times sqrt(2/out), from the same stream, in place of INI-2's; biases stay as they are."),
    # Random numbers
    Clause("RND-1", "MUST", "A stream is Philox 4x64 with key (seed, purpose) and a counter that starts at (0, 0, epoch, index), lowest word first, and grows by one before each block of four words, so that the first block is that of (1, 0, epoch, index); purposes init 1, order 2, augment 3, split 4."),
    Clause("RND-2", "MUST", "Draws take the stream's words in order, each once. A uniform is floor(word/2^11) 2^-53; an integer below n, n at most 2^32, is floor(uniform n); a permutation of n takes n words, and its place i holds the number, from 0, of the i-th smallest, the first of equals first. k normals are Box-Muller of h = ceil(k/2) uniforms a and then h uniforms b: first sqrt(-2 log(1 - a[i])) cos(2 pi b[i]) for i = 1 to h, then the same with sin, of which an odd k drops the last."),
    Clause("RND-3", "MUST", "Epoch e, from 0, presents the n training samples in use, ascending, in the order of the permutation of n from the stream (seed, order, e, 0); batch b, from 0, is places b B to b B + B - 1, and what does not fill a batch is dropped, or with training.drop_last = false is a last, smaller batch. Test samples come in their stored order, all of them."),
    Clause("RND-4", "MUST", "Training sample i, its number in the stored order, is varied in epoch e by the first ten uniforms of the stream (seed, augment, e, i): row and column of the crop; flip; AutoAugment's sub-policy, whether and with which sign its first step, whether and with which sign its second; row and column of cutout's centre. A policy that is off leaves the others' places. With p = max(1, floor(H/8)) and q likewise of W, the crop begins at row floor(u (2 p + 1)) and column floor(u' (2 q + 1)) of the image with p rows and q columns of zeros on each side; a flip is where u < 1/2; a sub-policy is floor(25 u), a step is taken where u is below its probability, and its sign is minus where u < 1/2; cutout sets rows c - floor(H/4) to c - floor(H/4) + floor(H/2) - 1 to 0, c = floor(u H), columns likewise, what is outside left out. The order is crop, flip, AutoAugment, normalization, cutout; data.quirks may put cutout before normalization and change AutoAugment, and no draw."),
    Clause("RND-5", "MUST", "A part of m of N labelled samples: put them in the order of the permutation of N from the stream (0, split, 0, k), k = 1 for the samples held out of training, 2 for the limit of those left to train on, 3 for that of the test; the r-th sample of its class in this order, r from 0, of a class of n, has the place (r + 1/2)/n, and the part are the m with the lowest places, of equal ones the first in that order."),
    # Precision
    Clause("PRE-1", "MUST", "f64 and f32-ieee: every operation in that format, products included (no TF32)."),
    Clause("PRE-2", "MUST", "bf16-mixed: operands and results of convolutions and what layers hand on are bfloat16, accumulated in float32; parameters, composed kernels before their cast, statistics, norms, potentials, readout, heads, losses, gradients of parameters and the optimizer are float32. A network's input, pooled features and hidden linear layers count as handed on; an operation asked for by itself rounds the operands and the result of convolutions and follows its input's format else."),
    Clause("PRE-3", "MUST", "tf32: as f32-ieee, but operands of products may be rounded to 11 significant bits."),
    Clause("PRE-4", "MUST", "Results are on the device asked for; inputs are never modified."),
    Clause("PRE-5", "MAY", "bf16-mixed: the gradient of a composed kernel may be rounded to bfloat16 where it leaves a convolution, over replicas that of each before they are added up."),
    Clause("PRE-6", "MAY", "bf16-mixed: gradients that layers hand back may be float32 or bfloat16; as operands of a convolution's gradients they are bfloat16."),
    Clause("PRE-7", "MUST", "A sum of n terms, products or not, may be taken in any order and fused, and is off by at most n roundings of the sum of the terms' magnitudes, in the format that it is accumulated in (PRE-1, PRE-2). In training a norm's mean, its variance, which is the mean of (x - mean)^2, and the sums in its gradients are off by at most 256 roundings however large n is."),
    # Many devices
    Clause("DEV-1", "MUST", "A training step over N replicas, of ranks 0 to N - 1, is one step of the global batch of B samples: rank r has samples r B/N to (r + 1) B/N - 1 in the order of the batch, each sample is in one rank, and a batch that N does not divide is refused."),
    Clause("DEV-2", "MUST", "The loss, its terms, counts and rates that are reported, and the gradient of every parameter are those of the global batch, the same on every rank: where a clause takes a mean over the batch it is over B samples, where it takes a sum it is over B samples, and what no sample enters, an orthogonality penalty, counts once. A parameter that gets no gradient on some rank gets the others'."),
    Clause("DEV-3", "MUST", "batch_norm.replicas = synchronized (the default): BN-1 to BN-4 hold for the global batch, and gradients pass through mean and variance from every rank's outputs to every rank's inputs, so that N devices compute what one does."),
    Clause("DEV-4", "MUST", "batch_norm.replicas = local: BN-1 to BN-3 hold for the samples of each rank by themselves, gradients included, and the running statistics after a step are the means over the ranks of what BN-4 makes of each rank's own. With N = 1 nothing differs from synchronized."),
    Clause("DEV-5", "MUST", "The state is replicated: parameters, running statistics, slots and counter are the same to the bit on every rank, after loading and after every step, retractions included; what ranks load must be the same. A state is dumped whole, and loads into any N."),
    Clause("DEV-6", "MUST", "Which samples a batch has, their order, and how each is varied are those of RND-3 and RND-4, of its number in the data, and depend neither on N nor on a rank."),
    Clause("DEV-7", "MUST", "Evaluation counts every sample once, also where N does not divide their number; evaluation in a program is of the samples handed to it and depends on no other rank."),
    Clause("DEV-8", "MAY", "Sums over ranks may be taken in any order and grouping (PRE-7), the same on every rank."),
    Clause("DEV-9", "UNDEFINED", "local with a single value per channel on a rank."),
    # Counts of inference
    Clause("ENE-1", "MUST", "Counts are of one twin in evaluation mode and of the layers that the main exit needs, over all samples and time steps, the artificial twin taking one step; they are exact whole numbers, and equal for equal values of the layers' outputs and potentials."),
    Clause("ENE-2", "MUST", "The footprint is the bytes, in the format of the state, of the twin's kernels as it uses them, composed where factored, of biases, of its norms' gamma, beta, mean and var, and of learned decays and thresholds (spiking twin)."),
    Clause("ENE-3", "MUST", "Connections are the entries of the kernels of convolutions and linear layers, as the twin uses them; connection sparsity is the share of them that is 0."),
    Clause("ENE-4", "MUST", "Activation sparsity is the share of the outputs of activation layers that is 0."),
    Clause("ENE-5", "MUST", "Dense operations: for every output of a convolution or linear layer, at every step, one for each of its inputs, inputs that are padding left out; biases count nothing, and a static image's first layers count at each of the T steps."),
    Clause("ENE-6", "MUST", "Effective operations are those of ENE-5 whose input and weight are both other than 0: additions (ACs) where the layer reads an activation layer of the spiking twin, multiply-adds (MACs) where it reads anything else, pooled spikes too."),
    Clause("ENE-7", "MUST", "Membrane updates: at the first step every neuron, at each later step the neurons whose potential after it, v[t], is another number than v[t-1]."),
)

BY_ID: dict[str, Clause] = {clause.id: clause for clause in CLAUSES}

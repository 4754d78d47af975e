/* The floor under every LIF on a CPU: one pass over time per block of neurons that stays in cache.

   u = 0.25 v + x, s = [u >= 0.5], v = (1 - s) u; rectangle surrogate of width 1, reset not detached.
   Arrays are (steps, n), float32, given and taken whole: nothing is allocated here. */

enum { BLOCK = 512, LONGEST = 256 };

static inline long least(long a, long b) { return a < b ? a : b; }

void lif_forward(long steps, long n, const float *restrict x, float *restrict s, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long start = 0; start < n; start += BLOCK) {
        long width = least(BLOCK, n - start);
        float v[BLOCK] = {0};
        for (long t = 0; t < steps; t++) {
            const float *restrict in = x + t * n + start;
            float *restrict out = s + t * n + start;
            for (long i = 0; i < width; i++) {
                float u = 0.25f * v[i] + in[i];
                out[i] = u >= 0.5f ? 1.0f : 0.0f;
                v[i] = u >= 0.5f ? 0.0f : u;
            }
        }
    }
}

/* Potentials are computed again rather than kept. steps <= LONGEST. */
void lif_backward(long steps, long n, const float *restrict x, const float *restrict g, float *restrict dx, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long start = 0; start < n; start += BLOCK) {
        long width = least(BLOCK, n - start);
        static __thread float u[LONGEST][BLOCK];
        float v[BLOCK] = {0}, e[BLOCK] = {0};
        for (long t = 0; t < steps; t++) {
            const float *restrict in = x + t * n + start;
            for (long i = 0; i < width; i++) {
                u[t][i] = 0.25f * v[i] + in[i];
                v[i] = u[t][i] >= 0.5f ? 0.0f : u[t][i];
            }
        }
        for (long t = steps; t-- > 0;) {
            const float *restrict g_t = g + t * n + start;
            float *restrict out = dx + t * n + start;
            for (long i = 0; i < width; i++) {
                float z = u[t][i] - 0.5f;
                float h = z < 0.5f && z > -0.5f ? 1.0f : 0.0f;
                float d = (g_t[i] - e[i] * u[t][i]) * h + (z >= 0.0f ? 0.0f : e[i]);
                out[i] = d;
                e[i] = 0.25f * d;
            }
        }
    }
}

// Convolutions of channels-last maps and their gradients, as products in tiles (clause LAY-1).
//
// A row of the product is a pixel of the map that is made, and for each tap of the kernel a row of the left operand is a pixel
// of the map that is read. Taps that meet nothing but padding in all rows of a tile are left out; on small maps, where
// these are many, pixels of one place stand together, over the whole batch.

#pragma once

#include "product.h"

namespace twinspike {

constexpr int64_t kPixels = 512;    // that a thread makes at once
constexpr int64_t kSmall = 64;      // pixels of a map that counts as small
constexpr int64_t kTaken = 256;     // pixels that a thread adds up for a kernel's gradient before sums go to memory

// The large map is what a convolution reads, the small one what it makes.
struct Sizes {
  int64_t batch, high, wide, channels;         // of the large map
  int64_t out_high, out_wide, out_channels;    // of the small one
  int64_t kernel_high, kernel_wide, stride, padding;
};

// y = convolution of x, or, with `kBack`, the gradient of x out of that of y.
template <class P, bool kBack>
struct Convolution {
  const P *from, *kernel;
  P* to;
  Sizes s;

  struct Pixel {
    int64_t sample, y, x;
  };

  int64_t depth() const { return kBack ? s.out_channels : s.channels; }
  int64_t width() const { return kBack ? s.channels : s.out_channels; }
  int64_t high() const { return kBack ? s.high : s.out_high; }
  int64_t wide() const { return kBack ? s.wide : s.out_wide; }
  int64_t pixels() const { return s.batch * high() * wide(); }
  int64_t taps() const { return s.kernel_high * s.kernel_wide; }
  int64_t ranges() const { return (pixels() + kPixels - 1) / kPixels; }
  // Columns of a block: fewer where there are few pixels, so that there are enough blocks.
  int64_t columns() const { return ranges() < 4 ? kColumns / 2 : kColumns; }
  int64_t blocks() const { return ranges() * ((width() + columns() - 1) / columns()); }
  int64_t together() const { return std::min(taps(), std::max<int64_t>(1, kDepth / depth())); }
  int64_t bytes() const {
    const int64_t met = s.kernel_high * high() + s.kernel_wide * wide();
    return (kDepth * kColumns + kDepth) * sizeof(P) + kPixels * sizeof(Pixel) + together() * sizeof(Segment<P>) + met * 4;
  }

  // Pixels first to first + n. Those whose places are equal modulo `step` stand together, sample after sample.
  void decode(int64_t first, int64_t n, Pixel* pixels) const {
    const bool small = high() * wide() <= kSmall;
    const int64_t step = small ? std::max(high(), wide()) : kBack ? s.stride : 1;
    int64_t begin = 0, end = first + n;
    for (int64_t y0 = 0; y0 < std::min(step, high()); ++y0)
      for (int64_t x0 = 0; x0 < std::min(step, wide()); ++x0) {
        const int64_t rows = (high() - y0 + step - 1) / step, columns = (wide() - x0 + step - 1) / step;
        const int64_t size = s.batch * rows * columns;
        for (int64_t i = std::max(begin, first); i < std::min(begin + size, end); ++i) {
          const int64_t at = i - begin, place = at % (rows * columns);
          pixels[i - first] = {at / (rows * columns), y0 + place / columns * step, x0 + place % columns * step};
        }
        begin += size;
      }
  }

  // Where taps meet lines of the map that is read: entry (tap, line of the map that is made); -1 is padding, or what the
  // stride left out.
  void lines(int64_t taps, int64_t made, int64_t read, int32_t* met) const {
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t y = 0; y < made; ++y) {
        const int64_t at = kBack ? y + s.padding - tap : y * s.stride + tap - s.padding;
        const bool whole = !kBack || at % s.stride == 0;
        const int64_t line = kBack ? at / s.stride : at;
        *met++ = at >= 0 && whole && line < read ? static_cast<int32_t>(line) : -1;
      }
  }

  // One block of pixels and columns.
  void run(int64_t number, P* packed) const {
    const int64_t first = number % ranges() * kPixels, n = std::min(kPixels, pixels() - first);
    const int64_t column = number / ranges() * columns(), across = std::min(columns(), width() - column);
    P* zeros = packed + kDepth * kColumns;
    Pixel* pixel = reinterpret_cast<Pixel*>(zeros + kDepth);
    Segment<P>* segments = reinterpret_cast<Segment<P>*>(pixel + kPixels);
    int32_t *met_y = reinterpret_cast<int32_t*>(segments + together()), *met_x = met_y + s.kernel_high * high();
    const int64_t read_high = kBack ? s.out_high : s.high, read_wide = kBack ? s.out_wide : s.wide;
    std::fill_n(zeros, kDepth, P(0));
    decode(first, n, pixel);
    lines(s.kernel_high, high(), read_high, met_y);
    lines(s.kernel_wide, wide(), read_wide, met_x);
    for (int64_t c = 0; c < depth(); c += kDepth) {
      const int64_t deep = std::min(kDepth, depth() - c);
      for (int64_t tap = 0; tap < taps(); tap += together()) {
        const int64_t end = std::min(tap + together(), taps()), rows = (end - tap) * deep;
        for (int64_t t = tap; t < end; ++t) {
          const int32_t *to_y = met_y + t / s.kernel_wide * high(), *to_x = met_x + t % s.kernel_wide * wide();
          if (std::none_of(pixel, pixel + n, [&](const Pixel& p) { return to_y[p.y] >= 0 && to_x[p.x] >= 0; })) continue;
          P* at = packed + (t - tap) * deep * kWidth<P>;
          if constexpr (kBack) {
            pack(kernel + (t * width() + column) * depth() + c, int64_t(1), depth(), deep, across, rows, at);
          } else {
            pack(kernel + (t * depth() + c) * width() + column, width(), int64_t(1), deep, across, rows, at);
          }
        }
        for (int64_t i = 0; i < n; i += kRows) {
          const int64_t count = std::min(kRows, n - i);
          Segment<P>* last = segments;
          for (int64_t t = tap; t < end; ++t) {
            const int32_t *to_y = met_y + t / s.kernel_wide * high(), *to_x = met_x + t % s.kernel_wide * wide();
            bool any = false;
            for (int64_t r = 0; r < kRows; ++r) {
              const Pixel& p = pixel[i + std::min(r, count - 1)];
              const int64_t y = to_y[p.y], x = to_x[p.x];
              const bool met = y >= 0 && x >= 0;
              any = any || met;
              last->a[r] = met ? from + ((p.sample * read_high + y) * read_wide + x) * depth() + c : zeros;
            }
            last->first = (t - tap) * deep, last->n = deep;
            last += any;
          }
          const bool fresh = c + tap == 0;
          if (last == segments && !fresh) continue;
          P* rows_to[kRows];
          for (int64_t r = 0; r < kRows; ++r) {
            const Pixel& p = pixel[i + std::min(r, count - 1)];
            rows_to[r] = to + ((p.sample * high() + p.y) * wide() + p.x) * width() + column;
          }
          for (int64_t j = 0; j < across; j += kWidth<P>) {
            tile(segments, last - segments, packed + j * rows, 1, 0, fresh, rows_to, count, across - j);
            for (P*& row : rows_to) row += kWidth<P>;
          }
        }
      }
    }
  }
};

// The gradient of a kernel: for each tap, products of what it met with the gradient of what was made, over all pixels.
template <class P>
struct KernelGradient {
  const P *x, *g;
  P* to;
  Sizes s;

  static constexpr int64_t kOut = 64;  // channels of a block
  int64_t in() const { return s.channels / 32 * (s.out_channels / kOut) >= 8 ? 32 : 16; }
  int64_t lines() const { return std::max<int64_t>(1, kTaken / s.out_wide); }  // of the small map, added up at once
  int64_t in_blocks() const { return (s.channels + in() - 1) / in(); }
  int64_t blocks() const { return in_blocks() * ((s.out_channels + kOut - 1) / kOut); }
  int64_t bytes() const { return std::max(kTaken, s.out_wide) * kOut * sizeof(P) + lines() * sizeof(Segment<P>); }

  // One block of channels read and channels made, for all taps.
  void run(int64_t number, P* packed) const {
    const int64_t first = number % in_blocks() * in(), deep = std::min(in(), s.channels - first);
    const int64_t column = number / in_blocks() * kOut, across = std::min(kOut, s.out_channels - column);
    Segment<P>* segments = reinterpret_cast<Segment<P>*>(packed + std::max(kTaken, s.out_wide) * kOut);
    const int64_t all = s.batch * s.out_high;
    for (int64_t line = 0; line < all; line += lines()) {
      const int64_t end = std::min(line + lines(), all), pixels = (end - line) * s.out_wide;
      pack(g + line * s.out_wide * s.out_channels + column, s.out_channels, int64_t(1), pixels, across, pixels, packed);
      for (int64_t tap = 0; tap < s.kernel_high * s.kernel_wide; ++tap) {
        for (int64_t i = 0; i < deep; i += kRows) {
          const int64_t rows = std::min(kRows, deep - i);
          const int64_t count = meets(line, end, tap, first + i, rows, segments);
          P* rows_to[kRows];
          for (int64_t r = 0; r < kRows; ++r)
            rows_to[r] = to + (tap * s.channels + first + i + std::min(r, rows - 1)) * s.out_channels + column;
          for (int64_t j = 0; j < across; j += kWidth<P>) {
            tile(segments, count, packed + j * pixels, s.stride * s.channels, 0, line == 0, rows_to, rows, across - j);
            for (P*& row : rows_to) row += kWidth<P>;
          }
        }
      }
    }
  }

  // Segments of what a tap meets on some lines of the small map, from a channel on; their number.
  int64_t meets(int64_t line, int64_t end, int64_t tap, int64_t channel, int64_t rows, Segment<P>* segment) const {
    const int64_t dy = tap / s.kernel_wide - s.padding, dx = tap % s.kernel_wide - s.padding;
    const int64_t left = dx < 0 ? (-dx + s.stride - 1) / s.stride : 0;
    const int64_t right = s.wide > dx ? std::min(s.out_wide, (s.wide - dx + s.stride - 1) / s.stride) : 0;
    int64_t count = 0;
    for (int64_t at = line; at < end && left < right; ++at) {
      const int64_t sample = at / s.out_high, y = at % s.out_high * s.stride + dy;
      if (y < 0 || y >= s.high) continue;
      const P* met = x + ((sample * s.high + y) * s.wide + left * s.stride + dx) * s.channels + channel;
      for (int64_t r = 0; r < kRows; ++r) segment->a[r] = met + std::min(r, rows - 1);
      segment->first = (at - line) * s.out_wide + left, segment->n = right - left;
      ++segment, ++count;
    }
    return count;
  }
};

}  // namespace twinspike

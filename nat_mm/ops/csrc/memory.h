// Loads and stores tensors: token by token in memory, channel by channel in rings and tiles.

#pragma once

#include "part.h"

namespace {

inline void clear(float* p, int64_t floats) {
  for (int64_t i = 0; i < floats; i += kLanes) store(p + i, broadcast(0.0f));
}

// [kLanes][channels] -> [channels][stride].
inline void to_lanes(const float* tokens, int channels, float* to, int stride) {
  for (int channel = 0; channel < channels; channel += 4, to += 4 * stride) {
    Vec x[4];
    for (int j = 0; j < 4; ++j) x[j] = load_quad(tokens + j * channels + channel, channels);
    transpose_quads(x);
    for (int j = 0; j < 4; ++j) store(to + j * stride, x[j]);
  }
}

// [channels][kLanes], with each lane times its `factor`, -> [kLanes][channels].
inline void from_lanes(const float* from, Vec factor, int channels, float* tokens) {
  for (int channel = 0; channel < channels; channel += 4, from += 4 * kLanes) {
    Vec x[4];
    for (int j = 0; j < 4; ++j) x[j] = load(from + j * kLanes) * factor;
    transpose_quads(x);
    for (int j = 0; j < 4; ++j) store_quad(tokens + j * channels + channel, channels, x[j]);
  }
}

// Factors for the tokens of a row: the same for all, or 1 / total for each query.
struct SameFactor {
  float factor;
  float operator()(int) const { return factor; }
};

class InverseTotal {
 public:
  InverseTotal(const Plan& plan, const Part& part, int row, const Axis& columns)
      : total_(plan.total + (part.sample * plan.height + row) * plan.width * plan.heads +
               part.head),
        token_(columns.token),
        heads_(plan.heads) {}
  float operator()(int position) const { return 1.0f / total_[token_[position] * heads_]; }

 private:
  const float* total_;
  const int32_t* token_;
  int64_t heads_;
};

// One head of a sample in a tensor, read and written kLanes tokens of a row at a time.
//
// The tokens pass through `stage`, [kLanes][channels], so that memory is accessed token by token in
// its own order, each cache line once, while the next tokens are prefetched.
class Head {
 public:
  Head(const Plan& plan, const View& view, int64_t sample, int64_t head, float* stage)
      : view_(view),
        stage_(stage),
        start_(sample * view.batch + head * view.head),
        channels_(plan.channels),
        is_bfloat16_(plan.is_bfloat16) {}

  // Loads tokens as [channels][stride], each times factor(position).
  template <class Factor>
  void load(int row, int position, const Factor& factor, float* to, int stride) const {
    if (is_bfloat16_) {
      load_stage(static_cast<const BFloat16*>(view_.data), row, position, factor);
    } else {
      load_stage(static_cast<const float*>(view_.data), row, position, factor);
    }
    to_lanes(stage_, channels_, to, stride);
  }

  // The inverse: stores the first `tokens` lanes of [channels][kLanes], each times its `factor`.
  void store(const float* from, Vec factor, int row, int position, int tokens) const {
    from_lanes(from, factor, channels_, stage_);
    if (is_bfloat16_) {
      store_stage(static_cast<BFloat16*>(view_.data), row, position, tokens);
    } else {
      store_stage(static_cast<float*>(view_.data), row, position, tokens);
    }
  }

 private:
  template <class T, class Factor>
  void load_stage(const T* data, int row, int position, const Factor& factor) const {
    data += start_ + row * view_.row;
    const int64_t* token = view_.column + position;
    float* to = stage_;
    for (int lane = 0; lane < kLanes; ++lane, to += channels_) {
      const Vec times = broadcast(factor(position + lane));
#pragma GCC unroll 4
      for (int channel = 0; channel < channels_; channel += kLanes) {
        __builtin_prefetch(data + token[lane + kLanes] + channel);
        const int left = channels_ - channel;
        const Vec x = load_channels(data + token[lane] + channel, left) * times;
        store_channels(to + channel, left, x);
      }
    }
  }

  // Whole cache lines bypass the caches; otherwise each would be read before it is overwritten.
  template <class T>
  void store_stage(T* data, int row, int position, int tokens) const {
    data += start_ + row * view_.row;
    const int64_t* token = view_.column + position;
    const float* from = stage_;
    if (view_.whole_lines) {
      for (int lane = 0; lane < tokens; ++lane, from += channels_) {
#pragma GCC unroll 4
        for (int channel = 0; channel < channels_; channel += kLanes) {
          stream_channels(data + token[lane] + channel, ::load(from + channel));
        }
      }
      return;
    }
    for (int lane = 0; lane < tokens; ++lane, from += channels_) {
#pragma GCC unroll 4
      for (int channel = 0; channel < channels_; channel += kLanes) {
        __builtin_prefetch(data + token[lane + kLanes] + channel, 1);
        const int left = channels_ - channel;
        store_channels(data + token[lane] + channel, left, load_channels(from + channel, left));
      }
    }
  }

  const View& view_;
  float* stage_;
  int64_t start_;
  int channels_;
  bool is_bfloat16_;
};

// Loads one row of a tensor into a ring, each token times factor(column).
template <class Factor>
inline void fill_row(const Ring& ring, const Part& part, const Axis& rows, const Head& head,
                     const Factor& factor, int position) {
  for (int column = part.ring_base; column < part.ring_end; column += kLanes) {
    float* to = ring.row(position) + (column - ring.base);
    head.load(rows.token[position], column, factor, to, ring.stride);
  }
}

}  // namespace

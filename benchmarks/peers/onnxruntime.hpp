// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// onnxruntime's y = x Wᵀ for 4-bit weights as a peer: MatMulNBits with int8 compute (accuracy_level 4), through its C
/// interface. A model of one node is written here in ONNX's protobuf form; every copy of the weights is a session of its
/// own, because inside one session equal initialisers are merged. Sessions share the threads of one environment, which do
/// not spin on after a run: what is timed next needs their processors.

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace bench {

/// Codes 0 to 15 (the weight is scale * (code - 8)), the even one in the low half of its byte; a scale a group.
struct onnx_weights {
    std::vector<std::uint8_t> codes; // (n, k / 2)
    std::vector<float> scales;       // (n, k / group)
    std::int64_t n, k, group;
};

namespace detail {

/// Fields of a protobuf message, as bytes. ONNX's field numbers are those of onnx.proto.
class protobuf {
public:
    protobuf& number(int field, std::int64_t value) {
        varint(static_cast<std::uint64_t>(field) << 3);
        varint(static_cast<std::uint64_t>(value));
        return *this;
    }
    protobuf& bytes(int field, std::string_view value) {
        varint(static_cast<std::uint64_t>(field) << 3 | 2);
        varint(value.size());
        data_.append(value);
        return *this;
    }
    protobuf& message(int field, protobuf const& value) { return bytes(field, value.data_); }
    [[nodiscard]] std::string const& data() const { return data_; }

private:
    void varint(std::uint64_t value) {
        for (; value >= 128; value >>= 7) data_.push_back(static_cast<char>(value | 128));
        data_.push_back(static_cast<char>(value));
    }
    std::string data_;
};

template <class T>
protobuf onnx_initializer(std::string_view name, std::vector<std::int64_t> const& shape, std::vector<T> const& values) {
    constexpr int element = std::is_same_v<T, float> ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    protobuf tensor;
    for (std::int64_t const extent : shape) tensor.number(1, extent);
    tensor.number(2, element).bytes(8, name);
    return tensor.bytes(9, {reinterpret_cast<char const*>(values.data()), values.size() * sizeof(T)});
}

/// The description of a float32 matrix that goes in or out.
inline protobuf onnx_value(std::string_view name, std::int64_t rows, std::int64_t columns) {
    protobuf const shape = protobuf{}.message(1, protobuf{}.number(1, rows)).message(1, protobuf{}.number(1, columns));
    protobuf const tensor = protobuf{}.number(1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT).message(2, shape);
    return protobuf{}.bytes(1, name).message(2, protobuf{}.message(1, tensor));
}

inline protobuf onnx_attribute(std::string_view name, std::int64_t value) {
    return protobuf{}.bytes(1, name).number(3, value).number(20, 2); // 2: an integer
}

inline std::string onnx_model(onnx_weights const& w, std::int64_t m) {
    std::int64_t const groups = w.k / w.group;
    protobuf node;
    for (char const* input : {"x", "codes", "scales"}) node.bytes(1, input);
    node.bytes(2, "y").bytes(4, "MatMulNBits").bytes(7, "com.microsoft");
    node.message(5, onnx_attribute("K", w.k)).message(5, onnx_attribute("N", w.n)).message(5, onnx_attribute("bits", 4));
    node.message(5, onnx_attribute("block_size", w.group)).message(5, onnx_attribute("accuracy_level", 4));

    protobuf graph;
    graph.message(1, node).bytes(2, "product");
    graph.message(5, onnx_initializer("codes", {w.n, groups, w.group / 2}, w.codes));
    graph.message(5, onnx_initializer("scales", {w.n * groups}, w.scales));
    graph.message(11, onnx_value("x", m, w.k)).message(12, onnx_value("y", m, w.n));
    protobuf model;
    model.number(1, 8).message(7, graph); // 8: version of the representation
    model.message(8, protobuf{}.bytes(1, "").number(2, 17)).message(8, protobuf{}.bytes(1, "com.microsoft").number(2, 1));
    return model.data();
}

inline OrtApi const& onnx() {
    static OrtApi const* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (api == nullptr) throw std::runtime_error("onnxruntime: the library is older than its header");
    return *api;
}

inline void onnx_check(OrtStatus* status) {
    if (status == nullptr) return;
    std::string const text = onnx().GetErrorMessage(status);
    onnx().ReleaseStatus(status);
    throw std::runtime_error("onnxruntime: " + text);
}

struct onnx_deleter {
    void operator()(OrtEnv* p) const { onnx().ReleaseEnv(p); }
    void operator()(OrtThreadingOptions* p) const { onnx().ReleaseThreadingOptions(p); }
    void operator()(OrtSessionOptions* p) const { onnx().ReleaseSessionOptions(p); }
    void operator()(OrtSession* p) const { onnx().ReleaseSession(p); }
    void operator()(OrtMemoryInfo* p) const { onnx().ReleaseMemoryInfo(p); }
    void operator()(OrtValue* p) const { onnx().ReleaseValue(p); }
};

template <class T>
using onnx_owner = std::unique_ptr<T, onnx_deleter>;

/// What `create` writes, owned.
template <class T, class Create>
onnx_owner<T> onnx_make(Create const& create) {
    T* made = nullptr;
    onnx_check(create(&made));
    return onnx_owner<T>(made);
}

} // namespace detail

class onnxruntime_product {
public:
    onnxruntime_product(onnx_weights const& weights, std::int64_t m, std::size_t copies, float const* x, int threads)
        : y_(static_cast<std::size_t>(m * weights.n)) {
        auto const& api = detail::onnx();
        auto const threading =
            detail::onnx_make<OrtThreadingOptions>([&](auto** p) { return api.CreateThreadingOptions(p); });
        detail::onnx_check(api.SetGlobalIntraOpNumThreads(threading.get(), threads));
        detail::onnx_check(api.SetGlobalInterOpNumThreads(threading.get(), 1));
        environment_ = detail::onnx_make<OrtEnv>([&](auto** p) {
            return api.CreateEnvWithGlobalThreadPools(ORT_LOGGING_LEVEL_ERROR, "benchmarks", threading.get(), p);
        });
        auto const options = detail::onnx_make<OrtSessionOptions>([&](auto** p) { return api.CreateSessionOptions(p); });
        detail::onnx_check(api.DisablePerSessionThreads(options.get()));
        detail::onnx_check(api.AddSessionConfigEntry(options.get(), "session.force_spinning_stop", "1"));
        std::string const model = detail::onnx_model(weights, m);
        for (std::size_t i = 0; i < copies; ++i)
            sessions_.push_back(detail::onnx_make<OrtSession>([&](auto** p) {
                return api.CreateSessionFromArray(environment_.get(), model.data(), model.size(), options.get(), p);
            }));
        auto const memory = detail::onnx_make<OrtMemoryInfo>(
            [&](auto** p) { return api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, p); });
        auto const value = [&](float* data, std::int64_t columns) {
            std::array<std::int64_t, 2> const shape{m, columns};
            return detail::onnx_make<OrtValue>([&](auto** p) {
                return api.CreateTensorWithDataAsOrtValue(memory.get(), data, static_cast<std::size_t>(m * columns) * sizeof(float),
                                                          shape.data(), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, p);
            });
        };
        input_ = value(const_cast<float*>(x), weights.k);
        output_ = value(y_.data(), weights.n);
    }

    void run(std::size_t copy) {
        char const* const in = "x";
        char const* const out = "y";
        OrtValue const* const input = input_.get();
        OrtValue* output = output_.get();
        detail::onnx_check(detail::onnx().Run(sessions_[copy].get(), nullptr, &in, &input, 1, &out, 1, &output));
    }
    [[nodiscard]] float const* output() const { return y_.data(); } // (m, n)

private:
    std::vector<float> y_;
    detail::onnx_owner<OrtEnv> environment_; // outlives the sessions
    std::vector<detail::onnx_owner<OrtSession>> sessions_;
    detail::onnx_owner<OrtValue> input_, output_;
};

} // namespace bench

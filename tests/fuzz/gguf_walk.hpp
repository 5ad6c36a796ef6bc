// SPDX-License-Identifier: MIT
#pragma once

// Reads everything that a parsed GGUF file hands out: sanitizers see any view that leaves the file.

#include <tessera/interop/gguf.hpp>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

namespace gguf_test {

namespace gguf = tessera::gguf;

class walk {
public:
    explicit walk(gguf::file const& f) : file_{f} {
        for (gguf::metadata_entry const& e : f.metadata()) {
            add(e.key);
            for (std::byte const b : e.bytes) add(b);
            value(e);
        }
        for (gguf::tensor_entry const& t : f.tensors()) {
            add(t.name);
            for (std::byte const b : t.bytes) add(b);
            sum_ += static_cast<std::uint64_t>(t.rows()) + (f.find_tensor(t.name) == &t);
            blocks(t);
        }
    }

    std::uint64_t sum() const noexcept { return sum_; }

private:
    void add(std::byte b) noexcept { sum_ = sum_ * 31 + static_cast<std::uint64_t>(b); }
    void add(std::string_view s) noexcept {
        for (std::byte const b : std::as_bytes(std::span{s})) add(b);
    }

    template <class T>
    void one(gguf::metadata_entry const& e) {
        if (e.type != gguf::value_type::array) {
            sum_ += file_.get<T>(e.key) != T{};
            return;
        }
        for (T const v : file_.get<gguf::array_view<T>>(e.key)) sum_ += v != T{};
    }

    void value(gguf::metadata_entry const& e) {
        using enum gguf::value_type;
        switch (e.type == array ? e.element_type : e.type) {
        case uint8: return one<std::uint8_t>(e);
        case int8: return one<std::int8_t>(e);
        case uint16: return one<std::uint16_t>(e);
        case int16: return one<std::int16_t>(e);
        case uint32: return one<std::uint32_t>(e);
        case int32: return one<std::int32_t>(e);
        case float32: return one<float>(e);
        case boolean: return one<bool>(e);
        case string: return one<std::string_view>(e);
        case uint64: return one<std::uint64_t>(e);
        case int64: return one<std::int64_t>(e);
        case float64: return one<double>(e);
        case array: return;
        }
    }

    /// The views have the size of the bytes they stand on.
    void blocks(gguf::tensor_entry const& t) {
        if (reinterpret_cast<std::uintptr_t>(t.bytes.data()) % alignof(float) != 0) return;
        tessera::index_t bytes = static_cast<tessera::index_t>(t.bytes.size());
        try {
            gguf::with_storage(t, [&](auto const& w) { bytes = stored(w); }, gguf::block_formats{});
        } catch (tessera::unsupported_error const&) { // a type that tessera only lists
        }
        if (bytes != static_cast<tessera::index_t>(t.bytes.size())) std::abort();
    }

    template <class T>
    static tessera::index_t stored(tessera::matrix_view<T const> const& w) {
        return tessera::span_bytes(w);
    }
    template <class Format>
    tessera::index_t stored(tessera::blocked<Format> const& w) {
        if (w.rows() > 0 && w.cols() > 0) // the last weight: any bits may be read
            sum_ += w(w.rows() - 1, w.cols() - 1) == 0.0f;
        return w.bytes();
    }

    gguf::file const& file_;
    std::uint64_t sum_ = 0;
};

} // namespace gguf_test

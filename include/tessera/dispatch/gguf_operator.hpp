// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Tensors of GGUF files as operators of run-time format.
///
///     ts::gguf::operator_formats<ts::cpu<>> formats;                 // dense types are always there
///     formats.add<ts::q4_k>().add<ts::q6_k>();                       // each is compiled where it is named
///     ts::any_operator<ts::cpu<>> w = formats.place(exec, file.tensor("blk.0.ffn_down.weight"));
///
/// A format costs its kernels' compile time and code where it is added, and only there: a function that adds some, in a file
/// of its own, compiles in parallel with others.

#include "../interop/gguf.hpp"
#include "../operators/place.hpp"
#include "any_operator.hpp"

#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI::gguf {

/// The formats of tensors that a program multiplies, by the type in the file. Coded weights take x in the form of
/// `Preparation`, dense ones as it is.
template <execution_policy Exec, preparation Preparation = int8_per_group<32>>
class operator_formats {
public:
    operator_formats() {
        add_dense<float>();
        add_dense<fp16>();
        add_dense<bf16>();
    }

    /// A block format; adding one twice changes nothing.
    template <block_format Format>
    operator_formats& add() {
        return insert(detail::type_for<Format>, [](Exec const& exec, tensor_entry const& t) {
            return make(exec, linear<blocked<Format>, Preparation>{as_blocked<Format>(t)});
        });
    }
    /// The block formats of a list.
    template <block_format... Format>
    operator_formats& add(format_list<Format...>) {
        (add<Format>(), ...);
        return *this;
    }

    bool has(tensor_type type) const noexcept { return find(type) != nullptr; }

    /// The tensor as an operator that owns its weights, placed for the policy (`reference`: refers to the file's bytes).
    /// @throws unsupported_error when its format was not added: names it and what was
    any_operator<Exec> place(Exec const& exec, tensor_entry const& t) const {
        entry const* const found = find(t.type);
        if (found != nullptr) return found->make(exec, t);
        std::string known;
        for (entry const& e : entries_) known += (known.empty() ? "" : ", ") + std::string{name_of(e.type)};
        tessera::detail::raise<unsupported_error>("tessera: gguf: tensor " + detail::quoted(t.name) + " is " + name_of(t.type) +
                                                  ", expected one of the formats that were added: " + known);
    }

private:
    using factory = any_operator<Exec> (*)(Exec const&, tensor_entry const&);
    struct entry {
        tensor_type type;
        factory make;
    };

    template <class Op>
    static any_operator<Exec> make(Exec const& exec, Op const& w) {
        if constexpr (std::is_same_v<Exec, reference>)
            return erase(exec, w);
        else
            return erase(exec, tessera::place(exec, w));
    }
    template <class T>
    void add_dense() {
        insert(detail::type_for<T>, [](Exec const& exec, tensor_entry const& t) { return make(exec, linear{as_dense<T>(t)}); });
    }
    operator_formats& insert(tensor_type type, factory f) {
        if (!has(type)) entries_.push_back({type, f});
        return *this;
    }
    entry const* find(tensor_type type) const noexcept {
        for (entry const& e : entries_)
            if (e.type == type) return &e;
        return nullptr;
    }

    std::vector<entry> entries_;
};

} // namespace tessera::inline TESSERA_ABI::gguf

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
/// of its own, compiles in parallel with others. CMake's `tessera_add_formats` writes such files, with ARCHS one for each format
/// and instruction set; the policy is then `cpu<dispatched>`.

#include "../interop/gguf.hpp"
#include "any_operator.hpp"

#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI::gguf {

/// The formats of tensors that a program multiplies, by the type in the file. Coded weights take x in the form of
/// `Preparation`, dense ones as it is. With `both_directions` transposes are compiled too, for gradients through frozen weights.
template <execution_policy Exec, preparation Preparation = int8_per_group<32>, erased_direction Direction = forward_direction>
class operator_formats {
public:
    /// With the dense types, except for `cpu<dispatched>`, whose units add all that they are compiled for.
    operator_formats() {
        if constexpr (!tessera::detail::is_dispatched<Exec>) add_dense();
    }

    /// float32, fp16 and bf16.
    template <class Arch = native_arch>
    operator_formats& add_dense() {
        return add_element<float, Arch>().template add_element<fp16, Arch>().template add_element<bf16, Arch>();
    }
    /// A block format; adding one twice changes nothing. Arch: of `cpu<dispatched>`, the instruction set of the calling file.
    template <block_format Format, class Arch = native_arch>
    operator_formats& add() {
        return insert(detail::type_for<Format>, [](boundary const& exec, tensor_entry const& t) {
            return make<Arch>(exec, linear<blocked<Format>, Preparation>{as_blocked<Format>(t)});
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
        if (found != nullptr) return found->make(tessera::detail::at_boundary(exec), t);
        std::string known;
        for (entry const& e : entries_) known += (known.empty() ? "" : ", ") + std::string{name_of(e.type)};
        tessera::detail::raise<unsupported_error>("tessera: gguf: tensor " + detail::quoted_name(t.name) + " is " + name_of(t.type) +
                                                  ", expected one of the formats that were added: " + known);
    }

private:
    using boundary = tessera::detail::boundary_policy<Exec>;
    using factory = any_operator<Exec> (*)(boundary const&, tensor_entry const&);
    struct entry {
        tensor_type type;
        factory make;
    };

    template <class Arch, class Op>
    static any_operator<Exec> make(boundary const& exec, Op const& w) {
        if constexpr (std::is_same_v<Exec, reference>) {
            return erase(exec, w, Direction{});
        } else {
            using run = typename tessera::detail::erased_policies<Exec, Arch>::run;
            return tessera::detail::erase_for<Exec, Arch, Direction>(tessera::place(tessera::detail::running<run>(exec), w));
        }
    }
    template <class T, class Arch>
    operator_formats& add_element() {
        return insert(detail::type_for<T>,
                      [](boundary const& exec, tensor_entry const& t) { return make<Arch>(exec, linear{as_dense<T>(t)}); });
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

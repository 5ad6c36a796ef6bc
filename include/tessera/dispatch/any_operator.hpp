// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A linear operator whose type is known at run time. `erase` turns any operator, or owner of one, into an `any_operator`:
///
///     auto w = ts::erase(exec, ts::place(exec, ts::linear{q, ts::int8_per_group<32>{}}));   // owns
///     auto v = ts::erase(exec, ts::linear{q} + adapter);                                    // refers to what its argument does
///     ts::apply(exec, w, x, y);                                                             // the bits of the typed operator
///
/// float32 x and y without an epilogue: one virtual call. Everything else goes through the view, `any_view`, which is a linear
/// operator like others: it may be a term of a sum, a factor, or sliced, takes epilogues and x and y of other types; tiles
/// then cost a virtual call each, and a copy of x in float32 is made. Nothing allocates but `erase`.
///
/// Gradients multiply by the transpose, whose kernels are compiled where it is asked for:
///
///     auto u = ts::erase(exec, ts::place(exec, ts::linear{q}), ts::both_directions{});
///     ts::apply(exec, ts::transposed(u.view()), dy, dx);                                    // of a sum with u.view() too
///
/// What is erased is compiled for one policy type, so the operator belongs to it. Of the policy `cpu<dispatched>` it runs the
/// instruction set of the file that erased it, a unit of tessera_add_dispatch; the caller's file may be compiled for another.
/// There `place` returns an `any_operator` at once:
///
///     ts::cpu<ts::dispatched> const exec;
///     ts::any_operator<ts::cpu<ts::dispatched>> w = ts::place(exec, ts::linear{q, ts::int8_per_group<32>{}});

#include "../operators/apply.hpp"
#include "../operators/describe.hpp"
#include "../operators/place.hpp"
#include "dispatched.hpp"

#include <memory>
#include <new>
#include <string>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// What can be done with an operator of unknown type; Exec is a boundary policy.
template <class Exec>
class erased_base {
public:
    virtual ~erased_base() = default;
    virtual void apply(Exec const&, matrix_view<float const> const& x, matrix_view<float> const& y) const = 0;
    virtual void check_apart(char const* operation, char const* output, footprint const& y) const = 0;
    virtual std::string describe(Exec const&, index_t m) const = 0;
    virtual erased_base const* other_direction() const noexcept { return nullptr; }

    // The contract of kernels/kernel.hpp; the state, and x's forms, are what `plan` carves.
    virtual void const* plan(Exec const&, matrix_view<float const> const& x, workspace_scope&) const = 0;
    virtual void measure(Exec const&, matrix_view<float const> const& x, workspace_sizer&) const = 0;
    virtual void prepare(Exec const&, matrix_view<float const> const& x, void const* state) const noexcept = 0;
    virtual index_t tile_rows() const noexcept = 0;
    virtual index_t scratch_bytes(tile_size) const noexcept = 0;
    virtual void accumulate(void const* state, product_task const&, std::byte* scratch) const noexcept = 0;
};
template <>
class erased_base<reference> {
public:
    virtual ~erased_base() = default;
    virtual void apply(reference const&, matrix_view<float const> const& x, matrix_view<float> const& y) const = 0;
    virtual void check_apart(char const* operation, char const* output, footprint const& y) const = 0;
    virtual std::string describe(reference const&, index_t m) const = 0;
    virtual erased_base const* other_direction() const noexcept { return nullptr; }
    virtual void measure(workspace_sizer&) const = 0;
    virtual void row(double const* x, double* y, double factor, workspace&) const = 0;
};

/// W is an operator, or the owner of one.
template <class W>
auto erased_view(W const& w) {
    if constexpr (linear_operator<W>)
        return w;
    else
        return w.view();
}

/// The part that does not depend on the kind of policy. What runs, runs with `Run`.
template <class Exec, class Run, class W>
class erased_holder : public erased_base<Exec> {
public:
    explicit erased_holder(W&& w) : w_{std::move(w)} {}
    void apply(Exec const& exec, matrix_view<float const> const& x, matrix_view<float> const& y) const final {
        tessera::apply(running<Run>(exec), op(), x, y);
    }
    void check_apart(char const* operation, char const* output, footprint const& y) const final {
        check_operator_apart(operation, op(), output, y);
    }

protected:
    auto op() const { return erased_view(w_); }

private:
    W w_;
};

template <class Exec, class Run, class W>
class erased_operator : public erased_holder<Exec, Run, W> {
    using op_type = decltype(erased_view(std::declval<W const&>()));
    using term = kernel<op::apply, Run, op_type>;
    using inputs_type = input_set<typename term::forms>;
    struct state {
        inputs_type inputs;
        typename term::state term_state;
    };

public:
    using erased_holder<Exec, Run, W>::erased_holder;
    std::string describe(Exec const& exec, index_t m) const override {
        std::string const text = describe_term(running<Run>(exec), this->op(), m);
        return std::is_same_v<Run, Exec> ? text : std::string{Run::arch_type::name} + ": " + text;
    }
    void const* plan(Exec const& exec, matrix_view<float const> const& x, workspace_scope& scope) const override {
        state* const s = scope.template carve<state>(1);
        auto const inputs = inputs_type::template plan<Run>(x, scope);
        return ::new (s) state{inputs, term::plan(running<Run>(exec), this->op(), x.extent(0), scope)};
    }
    void measure(Exec const& exec, matrix_view<float const> const& x, workspace_sizer& sizer) const override {
        sizer.carve<state>(1);
        static_cast<void>(inputs_type::template plan<Run>(x, sizer));
        static_cast<void>(term::plan(running<Run>(exec), this->op(), x.extent(0), sizer));
    }
    void prepare(Exec const& exec, matrix_view<float const> const& x, void const* s) const noexcept override {
        auto const& planned = *static_cast<state const*>(s);
        Run const run = running<Run>(exec);
        planned.inputs.run(run, x);
        term::prepare(run, this->op(), planned.inputs, planned.term_state);
    }
    index_t tile_rows() const noexcept override { return tile_rows_of<term>(this->op()); }
    index_t scratch_bytes(tile_size tile) const noexcept override { return term::scratch_bytes(this->op(), tile); }
    void accumulate(void const* s, product_task const& task, std::byte* scratch) const noexcept override {
        auto const& planned = *static_cast<state const*>(s);
        term::accumulate(this->op(), planned.inputs, planned.term_state, task, scratch);
    }
};

template <class W>
class erased_operator<reference, reference, W> : public erased_holder<reference, reference, W> {
    using term = kernel<op::apply, reference, decltype(erased_view(std::declval<W const&>()))>;

public:
    using erased_holder<reference, reference, W>::erased_holder;
    std::string describe(reference const&, index_t) const override { return "reference"; }
    void measure(workspace_sizer& sizer) const override { term::plan(this->op(), sizer); }
    void row(double const* x, double* y, double factor, workspace& arena) const override {
        term::row(this->op(), x, y, factor, arena);
    }
};

/// An operator and its transpose, which refers to what the operator holds.
template <class Exec, class Run, class W>
class erased_both_ways final : public erased_operator<Exec, Run, W> {
    using op_type = decltype(erased_view(std::declval<W const&>()));
    using transposed_type = decltype(transposed(std::declval<op_type const&>()));
    class backward final : public erased_operator<Exec, Run, transposed_type> {
    public:
        backward(transposed_type&& w, erased_both_ways const& forward)
            : erased_operator<Exec, Run, transposed_type>{std::move(w)}, forward_{&forward} {}
        erased_base<Exec> const* other_direction() const noexcept override { return forward_; }

    private:
        erased_both_ways const* forward_;
    };

public:
    explicit erased_both_ways(W&& w)
        : erased_operator<Exec, Run, W>{std::move(w)}, backward_{transposed(this->op()), *this} {}
    erased_both_ways(erased_both_ways const&) = delete;
    erased_both_ways& operator=(erased_both_ways const&) = delete;
    erased_base<Exec> const* other_direction() const noexcept override { return &backward_; }

private:
    backward backward_;
};

} // namespace detail

/// What `erase` compiles of an operator: y = x Wᵀ, or y = x W too.
struct forward_direction {};
struct both_directions {};
template <class D>
concept erased_direction = std::same_as<D, forward_direction> || std::same_as<D, both_directions>;

/// The operator of an `any_operator`: a view, valid as long as that is.
template <execution_policy Exec>
class any_view {
public:
    using is_linear_operator = void;
    using erased_type = detail::erased_base<detail::boundary_policy<Exec>>;

    any_view(erased_type const& erased, index_t rows, index_t cols) noexcept
        : erased_{&erased}, rows_{rows}, cols_{cols} {}
    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    erased_type const& erased() const noexcept { return *erased_; }

    // Found by the functions of the same name in operators/, which look into operators.
    friend void check_operator_apart(char const* operation, any_view const& w, char const* output, footprint const& y) {
        w.erased().check_apart(operation, output, y);
    }
    friend std::string describe_term(Exec const& exec, any_view const& w, index_t m) {
        return w.erased().describe(detail::at_boundary(exec), m);
    }

private:
    erased_type const* erased_;
    index_t rows_;
    index_t cols_;
};

/// See the file comment. Movable; an empty one has no rows and no columns, and must not be multiplied.
template <class Exec>
class any_operator {
public:
    using erased_type = typename any_view<Exec>::erased_type;

    any_operator() noexcept = default;
    any_operator(std::unique_ptr<erased_type> erased, index_t rows, index_t cols, index_t bytes) noexcept
        : erased_{std::move(erased)}, rows_{rows}, cols_{cols}, bytes_{bytes} {}

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    /// Bytes of weights that it owns: 0 where it refers to others'.
    index_t bytes() const noexcept { return bytes_; }
    bool is_empty() const noexcept { return erased_ == nullptr; }

    /// Throws shape_error where there is no operator.
    any_view<Exec> view() const& {
        check::not_null("any_operator", "the operator", erased_.get(), 1);
        return {*erased_, rows_, cols_};
    }
    void view() const&& = delete;

private:
    std::unique_ptr<erased_type> erased_;
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    detail::emptied_by_move<index_t> bytes_;
};

/// The other direction of an operator that was erased with `both_directions`; it is part of what `w` views.
/// @throws unsupported_error where one direction was erased
template <class Exec>
any_view<Exec> transposed(any_view<Exec> const& w) {
    auto const* const erased = w.erased().other_direction();
    if (erased == nullptr)
        detail::raise<unsupported_error>("tessera: transposed: the operator was erased in one direction, expected both_directions "
                                         "(of erase, place, gguf::operator_formats or tessera_add_formats)");
    return {*erased, w.cols(), w.rows()};
}

/// It is placed where it was erased: what is placed with it refers to the same operator.
template <execution_policy Exec>
    requires(!std::same_as<Exec, reference>) // which places nothing
class placed<Exec, any_view<Exec>> {
public:
    placed(Exec const&, any_view<Exec> const& w, memory_arena* = nullptr) noexcept : view_{w} {}
    any_view<Exec> view() const& noexcept { return view_; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return 0; }

private:
    any_view<Exec> view_;
};

namespace detail {

template <class Exec, class Arch, class Direction, class W>
any_operator<Exec> erase_for(W&& w) {
    using held = std::remove_cvref_t<W>;
    using boundary = typename erased_policies<Exec, Arch>::boundary;
    using run = typename erased_policies<Exec, Arch>::run;
    constexpr bool is_both = std::is_same_v<Direction, both_directions>;
    using erased = typename std::conditional_t<is_both, std::type_identity<erased_both_ways<boundary, run, held>>,
                                               std::type_identity<erased_operator<boundary, run, held>>>::type;
    auto const op = erased_view(w);
    index_t const rows = op.rows();
    index_t const cols = op.cols();
    index_t bytes = 0;
    if constexpr (operator_owner<held>)
        if constexpr (requires { w.bytes(); }) bytes = w.bytes();
    return {std::make_unique<erased>(held(std::forward<W>(w))), rows, cols, bytes};
}

} // namespace detail

/// The operator `w` without its type; an owner (of `place`) is moved in. Throws std::bad_alloc.
template <execution_policy Exec, class W, erased_direction Direction = forward_direction, class Arch = native_arch>
    requires linear_operator<std::remove_cvref_t<W>> || (!std::is_lvalue_reference_v<W> && operator_owner<W>)
any_operator<Exec> erase(Exec const&, W&& w, Direction = {}) {
    return detail::erase_for<Exec, Arch, Direction>(std::forward<W>(w));
}

/// Places an operator for the instruction set of the calling file, a unit of tessera_add_dispatch, and erases it.
template <class Parallel, linear_operator Op, erased_direction Direction = forward_direction, class Arch = native_arch>
any_operator<cpu<dispatched, Parallel>> place(cpu<dispatched, Parallel> const& exec, Op const& w, Direction = {}) {
    return detail::erase_for<cpu<dispatched, Parallel>, Arch, Direction>(place(cpu<Arch, Parallel>{exec.parallel(), exec.scratch()}, w));
}

/// y = x Wᵀ in one virtual call.
template <execution_policy Exec, class X, class EX, class LX, class AX, class EY, class LY, class AY>
    requires std::same_as<std::remove_cv_t<X>, float>
void apply(Exec const& exec, any_view<Exec> const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<float, EY, LY, AY> const& y,                                        // (m, n)
           no_epilogue const& = {}) {
    w.erased().apply(detail::at_boundary(exec), x, y);
}
/// The same by the definition: it has an `apply` of its own policy, and neither would be the better match.
template <class X, class EX, class LX, class AX, class EY, class LY, class AY>
    requires std::same_as<std::remove_cv_t<X>, float>
void apply(reference const& exec, any_view<reference> const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<float, EY, LY, AY> const& y,                                                  // (m, n)
           no_epilogue const& = {}) {
    w.erased().apply(detail::at_boundary(exec), x, y);
}

/// The instruction set and what the operator that was erased runs.
template <class Arch, class Parallel>
std::string describe(cpu<Arch, Parallel> const& exec, any_operator<cpu<Arch, Parallel>> const& w, index_t m) {
    return describe(exec, w.view(), m);
}

/// The instruction set is that of the file that erased it.
template <class Parallel>
std::string describe(cpu<dispatched, Parallel> const& exec, any_view<cpu<dispatched, Parallel>> const& w, index_t m) {
    return w.erased().describe(detail::at_boundary(exec), m);
}

template <class Arch, class Parallel>
struct kernel<op::apply, cpu<Arch, Parallel>, any_view<cpu<Arch, Parallel>>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = any_view<exec_type>;
    using forms = type_list<float_rows<0>>;
    struct state {
        matrix_view<float> x; // a copy: what plans for it needs to know where it will be
        void const* inner = nullptr;
    };

    template <class Arena>
    static state plan(exec_type const& exec, operand const& w, index_t m, Arena& arena) {
        state s;
        s.x = matrix_view<float>{arena.template carve<float>(m, w.cols()), m, w.cols()};
        if constexpr (std::is_same_v<Arena, workspace_sizer>)
            w.erased().measure(detail::at_boundary(exec), matrix_view<float const>{s.x}, arena);
        else
            s.inner = w.erased().plan(detail::at_boundary(exec), matrix_view<float const>{s.x}, arena);
        return s;
    }
    template <class Inputs>
    static void prepare(exec_type const& exec, operand const& w, Inputs const& inputs, state const& s) noexcept {
        auto const& x = inputs.template get<float_rows<0>>();
        for (index_t m = 0; m < s.x.extent(0); ++m)
            if (w.cols() > 0)
                std::memcpy(s.x.data_handle() + m * s.x.stride(0), x.row(m), static_cast<std::size_t>(w.cols()) * sizeof(float));
        w.erased().prepare(detail::at_boundary(exec), matrix_view<float const>{s.x}, s.inner);
    }
    static index_t tile_rows(operand const& w) noexcept { return w.erased().tile_rows(); }
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept { return w.erased().scratch_bytes(tile); }
    template <class Inputs>
    static void accumulate(operand const& w, Inputs const&, state const& s, product_task const& task, std::byte* scratch) noexcept {
        w.erased().accumulate(s.inner, task, scratch);
    }
};

template <>
struct kernel<op::apply, reference, any_view<reference>> {
    static void plan(any_view<reference> const& w, workspace_sizer& sizer) { w.erased().measure(sizer); }
    static void row(any_view<reference> const& w, double const* x, double* y, double factor, workspace& arena) {
        w.erased().row(x, y, factor, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI

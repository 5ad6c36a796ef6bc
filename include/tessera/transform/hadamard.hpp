// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `hadamard`: randomised Hadamard rotations as linear operators. With groups of g columns (g = k by default)
///
///     y = x Rᵀ,   R = diag(H, H, ...) D / sqrt(g)          D: random signs (philox of the seed), or none
///
/// R is (round_up(k, g), k): a last group that is not full is taken with zeros behind it, so Rᵀ R = 1 always and R Rᵀ = 1 where
/// g divides k. `transposed(r)` is the inverse. g is 2^p B for the blocks B of kernels/hadamard.hpp: 1, 12, 20, 28, 36, 44, ...
///
///     auto const r = hadamard{k, 1024, random_signs{7}};
///     apply(exec, r, x, y);                                 // rotated rows, O(m k log g)
///     apply(exec, linear{q} * r, x, y);                     // weights that were quantised rotated: x is rotated once, in prepare
///     apply(exec, a * r * transposed(r), x, y);             // neighbours that undo each other: nothing is rotated
///
/// Rotations that cancel are found when the product is built; `fixed_hadamard<K, G, Seed>` has its parameters in its type, and
/// then `a * r * transposed(r)` is `a` itself. `walsh_hadamard(exec, x, y)` is the matrix alone: no signs, not normalised.
/// NaN or infinity in x reaches every column of its group. Source: HIGGS (arXiv:2411.17525), QuaRot (arXiv:2404.00456).

#include "../kernels/cpu/hadamard.hpp"
#include "../kernels/ref/hadamard.hpp"
#include "../operators/apply.hpp"
#include "../operators/place.hpp"

#include <cmath>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// Signs of a rotation: by the counter-based generator, or all 1.
struct random_signs {
    std::uint64_t seed = 0;
};
struct no_signs {};

/// A rotation; see the file comment. A trivially copyable value.
class hadamard {
public:
    using is_linear_operator = void;

    constexpr hadamard() noexcept = default;
    /// @param k columns; @param group order of the matrix, 0: k.
    explicit hadamard(index_t k, index_t group = 0, no_signs = {}) : shape_{checked(k, group)} {}
    hadamard(index_t k, index_t group, random_signs signs) : hadamard{k, group} {
        shape_.has_signs = true;
        shape_.seed = signs.seed;
    }

    constexpr index_t rows() const noexcept { return shape_.rows(); }
    constexpr index_t cols() const noexcept { return shape_.cols(); }
    constexpr index_t group() const noexcept { return shape_.group; }
    constexpr detail::hadamard_shape const& shape() const noexcept { return shape_; }
    /// The inverse; where g does not divide k, the left one.
    constexpr hadamard inverse() const noexcept {
        hadamard t = *this;
        t.shape_.is_transposed = !shape_.is_transposed;
        return t;
    }
    float factor() const noexcept { return 1.0f / std::sqrt(static_cast<float>(shape_.group)); }

private:
    static detail::hadamard_shape checked(index_t k, index_t group) {
        check::within("hadamard", "columns", k, 0, index_t{1} << 40);
        check::within("hadamard", "group", group, 0, index_t{1} << 30);
        index_t const order = group == 0 ? maximum(k, 1) : group;
        detail::hadamard_shape s = detail::hadamard_of_order(order);
        if (s.block == 0)
            detail::raise<unsupported_error>("tessera: hadamard: order " + std::to_string(order) +
                                             " is no power of two times 1, 12, 20, 28, 36 or another order of kernels/hadamard.hpp");
        s.size = k;
        return s;
    }

    detail::hadamard_shape shape_{};
};

/// The inverse rotation.
constexpr hadamard transposed(hadamard const& r) noexcept { return r.inverse(); }
/// Whether `first` undoes `second`: first * second = 1.
constexpr bool cancels(hadamard const& first, hadamard const& second) noexcept {
    detail::hadamard_shape const& s = first.shape();
    return s == second.inverse().shape() && (s.is_transposed || s.size == s.padded());
}

/// The product of two rotations; nothing is computed where they cancel.
class hadamard_pair {
public:
    using is_linear_operator = void;
    hadamard_pair(hadamard const& a, hadamard const& b) : a_{a}, b_{b} {
        check::equal("product", "rows of the second factor", b.rows(), a.cols(), "columns of the first");
    }
    constexpr index_t rows() const noexcept { return a_.rows(); }
    constexpr index_t cols() const noexcept { return b_.cols(); }
    constexpr hadamard const& first() const noexcept { return a_; }
    constexpr hadamard const& second() const noexcept { return b_; }
    constexpr bool is_identity() const noexcept { return cancels(a_, b_); }

private:
    hadamard a_;
    hadamard b_;
};

/// The inverse: of the second, then of the first.
inline hadamard_pair transposed(hadamard_pair const& p) { return {transposed(p.second()), transposed(p.first())}; }

/// Two rotations one after the other: nothing is left to do where one undoes the other.
inline hadamard_pair operator*(hadamard const& a, hadamard const& b) { return {a, b}; }
/// Neighbours meet wherever the parentheses are.
template <linear_operator A>
product<A, hadamard_pair> operator*(product<A, hadamard> const& p, hadamard const& r) {
    return {p.first(), p.second() * r};
}
template <linear_operator B>
product<hadamard_pair, B> operator*(hadamard const& r, product<hadamard, B> const& p) {
    return {r * p.first(), p.second()};
}

/// A rotation of K columns in groups of G (a power of two times a block) whose parameters are its type; Seed -1: no signs.
template <index_t K, index_t G = K, std::int64_t Seed = -1>
class fixed_hadamard {
    static_assert(detail::hadamard_of_order(G).block > 0, "tessera: fixed_hadamard<K, G>: there is no Hadamard matrix of order G here");

public:
    using is_linear_operator = void;
    static constexpr index_t rows() noexcept { return round_up(K, G); }
    static constexpr index_t cols() noexcept { return K; }
    /// The same rotation as a value.
    static hadamard value() {
        return Seed < 0 ? hadamard{K, G} : hadamard{K, G, random_signs{static_cast<std::uint64_t>(Seed)}};
    }
};
/// The inverse of `fixed_hadamard<K, G, Seed>`.
template <index_t K, index_t G, std::int64_t Seed>
class fixed_hadamard_transposed {
public:
    using is_linear_operator = void;
    static constexpr index_t rows() noexcept { return K; }
    static constexpr index_t cols() noexcept { return round_up(K, G); }
    static hadamard value() { return transposed(fixed_hadamard<K, G, Seed>::value()); }
};
/// The inverse rotation.
template <index_t K, index_t G, std::int64_t Seed>
constexpr fixed_hadamard_transposed<K, G, Seed> transposed(fixed_hadamard<K, G, Seed> const&) noexcept {
    return {};
}
/// The rotation itself again.
template <index_t K, index_t G, std::int64_t Seed>
constexpr fixed_hadamard<K, G, Seed> transposed(fixed_hadamard_transposed<K, G, Seed> const&) noexcept {
    return {};
}
/// They cancel when the program is compiled.
template <linear_operator A, index_t K, index_t G, std::int64_t Seed>
    requires(K % G == 0)
A operator*(product<A, fixed_hadamard<K, G, Seed>> const& p, fixed_hadamard_transposed<K, G, Seed> const&) {
    return p.first();
}
template <linear_operator A, index_t K, index_t G, std::int64_t Seed>
A operator*(product<A, fixed_hadamard_transposed<K, G, Seed>> const& p, fixed_hadamard<K, G, Seed> const&) {
    return p.first();
}

namespace detail {

template <class T>
inline constexpr bool is_fixed_rotation = false;
template <index_t K, index_t G, std::int64_t Seed>
inline constexpr bool is_fixed_rotation<fixed_hadamard<K, G, Seed>> = true;
template <index_t K, index_t G, std::int64_t Seed>
inline constexpr bool is_fixed_rotation<fixed_hadamard_transposed<K, G, Seed>> = true;

/// Operators that turn rows of x into rows.
template <class T>
concept rotation = std::same_as<T, hadamard> || std::same_as<T, hadamard_pair> || is_fixed_rotation<T>;

/// What a rotation's run carves, for one rotation or two.
struct rotation_scratch {
    float* tables[2] = {};
    float* rows = nullptr;
    matrix_view<float> between; // (m, columns of the first)
};

template <class Exec, class Arena>
void plan_rotation(Exec const& exec, hadamard const& r, index_t, Arena& arena, rotation_scratch& s, int which = 0) {
    s.tables[which] = arena.template carve<float>(r.shape().table_floats());
    if (which == 0)
        s.rows = arena.template carve<float>(maximum(1, exec.parallel().concurrency()), kernel<op::hadamard, Exec, float>::row_floats(r.shape()));
}
template <class Exec, class Arena>
void plan_rotation(Exec const& exec, hadamard_pair const& p, index_t m, Arena& arena, rotation_scratch& s) {
    if (p.is_identity()) return;
    bool const wider = p.second().shape().padded() > p.first().shape().padded();
    plan_rotation(exec, wider ? p.second() : p.first(), m, arena, s, 0); // rows for the longer one
    s.tables[0] = arena.template carve<float>(p.first().shape().table_floats());
    s.tables[1] = arena.template carve<float>(p.second().shape().table_floats());
    s.between = matrix_view<float>{arena.template carve<float>(m, p.first().cols()), m, p.first().cols()};
}
template <class Exec, rotation R, class Arena>
    requires is_fixed_rotation<R>
void plan_rotation(Exec const& exec, R const&, index_t m, Arena& arena, rotation_scratch& s) {
    plan_rotation(exec, R::value(), m, arena, s);
}

template <class Exec, class X>
void run_rotation(Exec const& exec, hadamard const& r, matrix_view<X const> const& x, matrix_view<float> const& y,
                  rotation_scratch const& s) noexcept {
    kernel<op::hadamard, Exec, float>::run(exec, r.shape(), r.factor(), x, y, s.tables[0], s.rows);
}
template <class Exec, class X>
void run_rotation(Exec const& exec, hadamard_pair const& p, matrix_view<X const> const& x, matrix_view<float> const& y,
                  rotation_scratch const& s) noexcept {
    if (p.is_identity()) {
        for (index_t m = 0; m < x.extent(0); ++m)
            for (index_t k = 0; k < x.extent(1); ++k) y(m, k) = static_cast<float>(x(m, k));
        return;
    }
    using transform = kernel<op::hadamard, Exec, float>;
    transform::run(exec, p.second().shape(), p.second().factor(), x, s.between, s.tables[1], s.rows);
    transform::run(exec, p.first().shape(), p.first().factor(), matrix_view<float const>{s.between}, y, s.tables[0], s.rows);
}
template <class Exec, rotation R, class X>
    requires is_fixed_rotation<R>
void run_rotation(Exec const& exec, R const&, matrix_view<X const> const& x, matrix_view<float> const& y,
                  rotation_scratch const& s) noexcept {
    run_rotation(exec, R::value(), x, y, s);
}

/// The prepared rows as a matrix.
inline matrix_view<float const> rows_of_form(float_rows<0> const& x) noexcept {
    index_t const strides[] = {x.stride, 1};
    return {x.data, {dynamic_extents<2>{x.rows, x.columns}, strides}};
}

} // namespace detail

// --- the definitions -------------------------------------------------------------------------------------------------

template <>
struct kernel<op::apply, reference, hadamard> {
    static void plan(hadamard const& r, workspace_sizer& sizer) { sizer.carve<float>(r.shape().block, r.shape().block); }
    static void row(hadamard const& r, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        float* const block = scope.carve<float>(r.shape().block, r.shape().block);
        detail::fill_hadamard_block(r.shape().block, block);
        double const scale = factor / std::sqrt(static_cast<double>(r.group()));
        detail::reference_hadamard(r.shape(), block, scale, [&](index_t j) { return x[j]; }, [&](index_t i, double v) { y[i] += v; });
    }
};
template <>
struct kernel<op::apply, reference, hadamard_pair> : kernel<op::apply, reference, product<hadamard, hadamard>> {
    static void plan(hadamard_pair const& p, workspace_sizer& sizer) {
        kernel<op::apply, reference, product<hadamard, hadamard>>::plan({p.first(), p.second()}, sizer);
    }
    static void row(hadamard_pair const& p, double const* x, double* y, double factor, workspace& arena) {
        kernel<op::apply, reference, product<hadamard, hadamard>>::row({p.first(), p.second()}, x, y, factor, arena);
    }
};
template <detail::rotation R>
    requires detail::is_fixed_rotation<R>
struct kernel<op::apply, reference, R> {
    static void plan(R const&, workspace_sizer& sizer) { kernel<op::apply, reference, hadamard>::plan(R::value(), sizer); }
    static void row(R const&, double const* x, double* y, double factor, workspace& arena) {
        kernel<op::apply, reference, hadamard>::row(R::value(), x, y, factor, arena);
    }
};

// --- inside a product ------------------------------------------------------------------------------------------------

/// As a term: rows are rotated before the loop, which adds them.
template <class Arch, class Parallel, detail::rotation R>
struct kernel<op::apply, cpu<Arch, Parallel>, R> {
    using exec_type = cpu<Arch, Parallel>;
    using forms = type_list<float_rows<0>>;
    struct state {
        detail::rotation_scratch scratch;
        matrix_view<float> rotated; // (m, rows)
    };
    template <class Arena>
    static state plan(exec_type const& exec, R const& r, index_t m, Arena& arena) {
        state s;
        s.rotated = matrix_view<float>{arena.template carve<float>(m, r.rows()), m, r.rows()};
        detail::plan_rotation(exec, r, m, arena, s.scratch);
        return s;
    }
    template <class Inputs>
    static void prepare(exec_type const& exec, R const& r, Inputs const& inputs, state const& s) noexcept {
        detail::run_rotation(exec, r, detail::rows_of_form(inputs.template get<float_rows<0>>()), s.rotated, s.scratch);
    }
    static index_t scratch_bytes(R const&, tile_size) noexcept { return 0; }
    template <class Inputs>
    static void accumulate(R const&, Inputs const&, state const& s, product_task const& task, std::byte*) noexcept {
        for (index_t m = task.m0; m < task.m1; ++m)
            for (index_t n = task.n0; n < task.n1; ++n)
                task.accumulator[(m - task.m0) * task.stride + n - task.n0] += task.factor * s.rotated(m, n);
    }
};

/// A R: x is rotated, and what A wants of it prepared, before the loop.
template <class Arch, class Parallel, class A, detail::rotation R>
struct kernel<op::apply, cpu<Arch, Parallel>, product<A, R>> {
    using exec_type = cpu<Arch, Parallel>;
    using outer = kernel<op::apply, exec_type, A>;
    using forms = type_list<float_rows<0>>;
    using outer_inputs = input_set<typename outer::forms>;
    struct state {
        typename outer::state a;
        outer_inputs inputs;
        detail::rotation_scratch scratch;
        matrix_view<float> rotated; // (m, rows of R)
    };
    template <class Arena>
    static state plan(exec_type const& exec, product<A, R> const& p, index_t m, Arena& arena) {
        state s;
        s.rotated = matrix_view<float>{arena.template carve<float>(m, p.second().rows()), m, p.second().rows()};
        detail::plan_rotation(exec, p.second(), m, arena, s.scratch);
        s.inputs = outer_inputs::template plan<exec_type>(matrix_view<float const>{s.rotated}, arena);
        s.a = outer::plan(exec, p.first(), m, arena);
        return s;
    }
    template <class Inputs>
    static void prepare(exec_type const& exec, product<A, R> const& p, Inputs const& inputs, state const& s) noexcept {
        detail::run_rotation(exec, p.second(), detail::rows_of_form(inputs.template get<float_rows<0>>()), s.rotated, s.scratch);
        s.inputs.run(exec, matrix_view<float const>{s.rotated});
        outer::prepare(exec, p.first(), s.inputs, s.a);
    }
    static index_t scratch_bytes(product<A, R> const& p, tile_size tile) noexcept { return outer::scratch_bytes(p.first(), tile); }
    template <class Inputs>
    static void accumulate(product<A, R> const& p, Inputs const&, state const& s, product_task const& task, std::byte* scratch) noexcept {
        outer::accumulate(p.first(), s.inputs, s.a, task, scratch);
    }
};

/// A rotation owns nothing.
template <class Exec, detail::rotation R>
class placed<Exec, R> {
public:
    placed(Exec const&, R const& r, memory_arena* = nullptr) : r_{r} {}
    R view() const& noexcept { return r_; }
    void view() const&& = delete;
    static constexpr index_t bytes() noexcept { return 0; }

private:
    R r_;
};

/// For `describe`.
template <class Exec>
std::string describe_term(Exec const&, hadamard const& r, index_t) {
    return std::string{"hadamard of "} + std::to_string(r.group()) + (r.shape().has_signs ? " with signs" : "") +
           (r.shape().is_transposed ? ", transposed" : "");
}
template <class Exec>
std::string describe_term(Exec const& exec, hadamard_pair const& p, index_t m) {
    return p.is_identity() ? "rotations that cancel"
                           : "(" + describe_term(exec, p.first(), m) + ") * (" + describe_term(exec, p.second(), m) + ")";
}
template <class Exec, detail::rotation R>
    requires detail::is_fixed_rotation<R>
std::string describe_term(Exec const& exec, R const&, index_t m) {
    return describe_term(exec, R::value(), m);
}

// --- the transform alone ---------------------------------------------------------------------------------------------

/// y = x Hᵀ by groups: the Hadamard matrix of kernels/hadamard.hpp, without signs, not normalised. x (m, k), y (m, k) of float, fp16
/// or bf16, any strides, k a multiple of the group (0: k); y may be x itself. Throws shape_error, unsupported_error.
template <execution_policy Exec, class X, class EX, class LX, class AX, class Y, class EY, class LY, class AY>
void walsh_hadamard(Exec const& exec, view<X, EX, LX, AX> const& x, view<Y, EY, LY, AY> const& y, index_t group = 0) {
    detail::require_backend<Exec>();
    auto const values = detail::activations("walsh_hadamard", x);
    hadamard const r{values.extent(1), group};
    check::equal("walsh_hadamard", "rows of y", y.extent(0), x.extent(0), "rows of x");
    check::equal("walsh_hadamard", "columns of y", y.extent(1), x.extent(1), "columns of x");
    check::multiple("walsh_hadamard", "columns of x", x.extent(1), r.group());
    check::elements("walsh_hadamard", "y", y);
    matrix_view<Y> const out{y};
    check::distinct_elements("walsh_hadamard", "y", out);
    bool const is_in_place = is_same_array(x, y);
    if (!is_in_place) check::no_overlap("walsh_hadamard", "x", footprint_of(values), "y", footprint_of(out));
    if (out.empty()) return;
    workspace_scope scope{exec.scratch()};
    float* const tables = scope.template carve<float>(r.shape().table_floats());
    if constexpr (std::is_same_v<Exec, reference>) {
        auto const copy = matrix_view<float>{scope.template carve<float>(x.extent(0), x.extent(1)), x.extent(0), x.extent(1)};
        for (index_t m = 0; m < x.extent(0); ++m)
            for (index_t k = 0; k < x.extent(1); ++k) copy(m, k) = static_cast<float>(x(m, k));
        kernel<op::hadamard, reference, float>::run(exec, r.shape(), 1.0f, matrix_view<float const>{copy}, out, tables);
    } else {
        using transform = kernel<op::hadamard, Exec, float>;
        float* const rows = scope.template carve<float>(maximum(1, exec.parallel().concurrency()), transform::row_floats(r.shape()));
        transform::run(exec, r.shape(), 1.0f, values, out, tables, rows);
    }
}
/// The same for owners.
template <execution_policy Exec>
void walsh_hadamard(Exec const& exec, matrix<float> const& x, matrix<float>& y, index_t group = 0) {
    walsh_hadamard(exec, x.view(), y.view(), group);
}

} // namespace tessera::inline TESSERA_ABI

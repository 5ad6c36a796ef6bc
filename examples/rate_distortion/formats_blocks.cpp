// SPDX-License-Identifier: MIT
// The block formats of GGUF. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/storage/block_formats.hpp>
#include <tessera/storage/grid_formats.hpp>
#include <tessera/storage/k_formats.hpp>
#include <tessera/storage/table_formats.hpp>
#include <tessera/storage/ternary_formats.hpp>

namespace rate_distortion {

namespace {

template <class Format>
format blocks(std::string name) {
    return encoding<compress::blocks<Format>>(std::move(name), family::gguf);
}

} // namespace

void add_blocks(std::vector<format>& out) {
    out.push_back(blocks<ts::q8_0>("Q8_0"));
    out.push_back(blocks<ts::q5_1>("Q5_1"));
    out.push_back(blocks<ts::q5_0>("Q5_0"));
    out.push_back(blocks<ts::q4_1>("Q4_1"));
    out.push_back(blocks<ts::q4_0>("Q4_0"));
    out.push_back(blocks<ts::q6_k>("Q6_K"));
    out.push_back(blocks<ts::q5_k>("Q5_K"));
    out.push_back(blocks<ts::q4_k>("Q4_K"));
    out.push_back(blocks<ts::q3_k>("Q3_K"));
    out.push_back(blocks<ts::q2_k>("Q2_K"));
    out.push_back(blocks<ts::iq4_nl>("IQ4_NL"));
    out.push_back(blocks<ts::iq4_xs>("IQ4_XS"));
    out.push_back(blocks<ts::tq2_0>("TQ2_0"));
    out.push_back(blocks<ts::tq1_0>("TQ1_0"));
    out.push_back(blocks<ts::q2_0>("Q2_0"));
    out.push_back(blocks<ts::q1_0>("Q1_0"));
    out.push_back(blocks<ts::gguf_mxfp4>("MXFP4 of GGUF"));
    out.push_back(blocks<ts::gguf_nvfp4>("NVFP4 of GGUF"));
    out.push_back(blocks<ts::iq3_s>("IQ3_S"));
    out.push_back(blocks<ts::iq3_xxs>("IQ3_XXS"));
    out.push_back(blocks<ts::iq2_s>("IQ2_S"));
    out.push_back(blocks<ts::iq2_xs>("IQ2_XS"));
    out.push_back(blocks<ts::iq2_xxs>("IQ2_XXS"));
    out.push_back(blocks<ts::iq1_m>("IQ1_M"));
    out.push_back(blocks<ts::iq1_s>("IQ1_S"));
}

} // namespace rate_distortion

// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The text that models are judged on: written for this program, of several kinds, under the licence of the repository.

#include <string_view>

namespace compress {

inline constexpr std::string_view built_in_text =
    R"(A lighthouse keeper writes down three numbers every evening: the height of the water, the direction of the wind, and the hour at which the lamp was lit. On 14 March the water stood at 3.2 metres, the wind came from the north-west, and the lamp was lit at 18:40. None of this seems important, but after forty years the books fill a shelf, and a student who reads them can see how the coast has changed.

Plants make sugar from water, carbon dioxide and light. The reaction needs energy, which the green pigment chlorophyll takes from the red and blue parts of the spectrum; what is left over is reflected, and so leaves look green.

To find the largest element of a list in Python, walk through it once and remember the best value so far:

def largest(values):
    best = values[0]
    for value in values[1:]:
        if value > best:
            best = value
    return best

print(largest([3, 17, 8, 11]))  # prints 17

A train leaves at 9:15 and travels 150 kilometres in two hours. Its average speed is 150 / 2 = 75 kilometres per hour.

"Did you bring the map?" asked Maria.
"I thought that you had it," said her brother. They looked at each other, then at the fog, and began to laugh.

Recipe for bread: mix 500 g of flour, 350 g of water, 10 g of salt and 5 g of yeast. Let the dough rest overnight in a cool place, shape it in the morning, and bake it for 40 minutes at 230 degrees.
)";

} // namespace compress

// Damage to model files, from torn bytes to programs that are sound JSON but lie.
#pragma once
#include <string>

#include "random.h"

// A file with one to three things changed.
std::string mutate(const std::string& file, Random& random);

// A model file of a header, the JSON of a program and what the header's arrays lie in.
std::string model_file(const std::string& program, const std::string& precision,
                       const std::string& arrays, const std::string& data);

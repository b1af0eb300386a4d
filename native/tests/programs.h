// Small programs of random steps, each of which may well be sound: what exporters never write.
#pragma once
#include <string>

#include "random.h"

std::string random_model(Random& random);

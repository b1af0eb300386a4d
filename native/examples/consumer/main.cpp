// consumer MODEL HEIGHT WIDTH: runs a model on a grey picture and prints the shapes of its outputs.
#include <espnetv2.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "use: consumer MODEL HEIGHT WIDTH\n");
    return 2;
  }
  const int height = std::atoi(words[2]), width = std::atoi(words[3]);
  char error[256];
  espnetv2_model* model = espnetv2_load(words[1], error, sizeof error);
  if (!model) {
    std::fprintf(stderr, "%s\n", error);
    return 1;
  }
  espnetv2_context* context =
      espnetv2_open(model, 1, height, width, 2, nullptr, 0, error, sizeof error);
  if (!context) {
    std::fprintf(stderr, "%s\n", error);
    espnetv2_free(model);
    return 1;
  }
  const std::vector<float> image(static_cast<size_t>(espnetv2_channels(model)) * height * width,
                                 0.5f);
  espnetv2_run(context, image.data());
  for (int i = 0; i < espnetv2_outputs(context); ++i) {
    std::printf("%s", espnetv2_output_name(context, i));
    for (int side = 0; side < espnetv2_output_rank(context, i); ++side) {
      std::printf(" %lld", static_cast<long long>(espnetv2_output_shape(context, i)[side]));
    }
    std::printf("\n");
  }
  espnetv2_close(context);
  espnetv2_free(model);
  return 0;
}

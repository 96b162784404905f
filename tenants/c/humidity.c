// A provider for `map:custom` in C: how much water is in air, from `temperature` in °C and
// relative `humidity` in %, after Magnus with the coefficients of Sonntag (1990), added as
// `absoluteHumidity` in g/m³ to a tenth. It imports nothing, so that it can do nothing else.

#include <math.h>
#include <stdio.h>

#include "custom_provider.h"
#include "json.h"

typedef exports_map_custom_custom_data_model_t data_model_t;
typedef exports_map_custom_custom_error_t error_t;
typedef exports_map_custom_custom_module_configuration_t configuration_t;

static bool refuse(error_t *error, const char *text) {
    error->tag = MAP_CUSTOM_TYPES_ERROR_INVALID_ARGUMENT;
    custom_provider_string_dup(&error->val.invalid_argument, text);
    return false;
}

static double grams_of_water(double temperature, double humidity) {
    double pascals = humidity / 100 * 611.2 * exp(17.62 * temperature / (243.12 + temperature));
    return 1000 * pascals / (461.5 * (273.15 + temperature));
}

bool exports_map_custom_custom_process(data_model_t *given, data_model_t *result, error_t *error) {
    custom_provider_list_u8_t payload = given->payload;
    const char *text = (char *)payload.ptr;
    double temperature, humidity;
    size_t end;
    bool is_empty, accepted = false;
    if (!json_object_end(text, payload.len, &end, &is_empty)) {
        refuse(error, "not a JSON object");
    } else if (!json_number(text, payload.len, "temperature", &temperature) ||
               !json_number(text, payload.len, "humidity", &humidity)) {
        refuse(error, "no numbers `temperature` and `humidity`");
    } else if (!(temperature > -100 && temperature < 100 && humidity >= 0 && humidity <= 100)) {
        refuse(error, "no air is like that");
    } else {
        char added[64];
        double water = round(grams_of_water(temperature, humidity) * 10) / 10;
        int len = snprintf(added, sizeof added, ",\"absoluteHumidity\":%.1f}", water);
        result->payload.len = end + len;
        result->payload.ptr = malloc(result->payload.len);
        if (!result->payload.ptr) abort();
        memcpy(result->payload.ptr, text, end);
        memcpy(result->payload.ptr + end, added, len);
        accepted = true;
    }
    exports_map_custom_custom_data_model_free(given);
    return accepted;
}

bool exports_map_custom_custom_init(configuration_t *configuration) {
    exports_map_custom_custom_module_configuration_free(configuration);
    return true;
}

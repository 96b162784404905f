// A filter in C, in the contract of Azure IoT Operations: passes what happened within some
// distance of a place, along the surface of the earth. It knows nothing of the host.
//
// Payloads are JSON objects with the numbers `latitude` and `longitude`. Parameters, all of
// which must be given: `latitude`, `longitude` and `kilometres`.

#include <math.h>

#include "filter_impl.h"
#include "json.h"

typedef exports_wasm_graph_processor_filter_data_model_t data_model_t;
typedef exports_wasm_graph_processor_filter_error_t error_t;
typedef exports_wasm_graph_processor_filter_module_configuration_t configuration_t;

static const double PI = 3.14159265358979323846, EARTH_KM = 6371.0088;

static double latitude, longitude, kilometres;

static double radians(double degrees) { return degrees * PI / 180; }

static double distance_km(double to_latitude, double to_longitude) {
    double north = sin(radians(to_latitude - latitude) / 2), east = sin(radians(to_longitude - longitude) / 2);
    double chord = north * north + cos(radians(latitude)) * cos(radians(to_latitude)) * east * east;
    return 2 * EARTH_KM * asin(fmin(1, sqrt(chord)));
}

// False with a text is the contract's `error`: this message alone is dropped.
static bool refuse(error_t *error, const char *text) {
    filter_impl_string_dup(&error->message, text);
    return false;
}

// The payload's bytes, which are then the caller's to free.
static filter_impl_list_u8_t payload_of(wasm_graph_processor_types_buffer_or_bytes_t *payload) {
    filter_impl_list_u8_t bytes = payload->val.bytes;
    if (payload->tag == WASM_GRAPH_PROCESSOR_TYPES_BUFFER_OR_BYTES_BUFFER) {
        wasm_graph_processor_types_method_buffer_read(
            wasm_graph_processor_types_borrow_buffer(payload->val.buffer), &bytes);
        wasm_graph_processor_types_buffer_or_bytes_free(payload);
    }
    payload->tag = WASM_GRAPH_PROCESSOR_TYPES_BUFFER_OR_BYTES_BYTES;
    payload->val.bytes = (filter_impl_list_u8_t){0};
    return bytes;
}

bool exports_wasm_graph_processor_filter_process(data_model_t *data, bool *passes, error_t *error) {
    bool is_message = data->tag == WASM_GRAPH_PROCESSOR_TYPES_DATA_MODEL_MESSAGE, has_place = false;
    double there_latitude, there_longitude;
    if (is_message) {
        filter_impl_list_u8_t payload = payload_of(&data->val.message.payload);
        has_place = json_number((char *)payload.ptr, payload.len, "latitude", &there_latitude) &&
                    json_number((char *)payload.ptr, payload.len, "longitude", &there_longitude);
        filter_impl_list_u8_free(&payload);
    }
    // What an export is given is its own to free.
    exports_wasm_graph_processor_filter_data_model_free(data);
    if (!is_message) return refuse(error, "expected a message");
    if (!has_place) return refuse(error, "no numbers `latitude` and `longitude`");
    *passes = distance_km(there_latitude, there_longitude) <= kilometres;
    return true;
}

// A parameter that is a number.
static bool parameter(configuration_t *configuration, const char *key, double *number) {
    for (size_t i = 0; i < configuration->properties.len; i++) {
        filter_impl_string_t name = configuration->properties.ptr[i].f0, text = configuration->properties.ptr[i].f1;
        if (name.len != strlen(key) || memcmp(name.ptr, key, name.len)) continue;
        char copy[64], *stop = copy;
        if (text.len == 0 || text.len >= sizeof copy) return false;
        memcpy(copy, text.ptr, text.len);
        copy[text.len] = 0;
        *number = strtod(copy, &stop);
        return *stop == 0 && isfinite(*number);
    }
    return false;
}

bool exports_wasm_graph_processor_filter_init(configuration_t *configuration) {
    bool has_all = parameter(configuration, "latitude", &latitude) &&
                   parameter(configuration, "longitude", &longitude) &&
                   parameter(configuration, "kilometres", &kilometres);
    exports_wasm_graph_processor_filter_module_configuration_free(configuration);
    if (!has_all) {
        filter_impl_string_t context, text;
        filter_impl_string_set(&context, "near");
        filter_impl_string_set(&text, "`latitude`, `longitude` and `kilometres` must be given, as numbers");
        wasm_graph_processor_logger_log(WASM_GRAPH_PROCESSOR_LOGGER_LEVEL_ERROR, &context, &text);
    }
    return has_all;
}

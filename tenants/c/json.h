// The little of JSON that the operators here need: numbers in an object, and where it ends.
// Nothing is copied, and no byte beyond the text is read.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// What is still to be read.
typedef struct {
    const char *at, *end;
} json_t;

// Objects and lists inside each other; what lies deeper is refused.
enum { JSON_DEPTH_MAX = 64 };

static inline bool json_value(json_t *json, int depth);

static inline void json_space(json_t *json) {
    while (json->at < json->end && strchr(" \t\r\n", *json->at) && *json->at) json->at++;
}

// Skips space and then this character, if it is the next.
static inline bool json_take(json_t *json, char wanted) {
    json_space(json);
    if (json->at == json->end || *json->at != wanted) return false;
    json->at++;
    return true;
}

static inline bool json_string(json_t *json) {
    if (!json_take(json, '"')) return false;
    for (; json->at < json->end; json->at++) {
        if (*json->at == '"') {
            json->at++;
            return true;
        }
        if (*json->at == '\\' && ++json->at == json->end) return false;
    }
    return false;
}

// Skips a list, or an object.
static inline bool json_members(json_t *json, char last, bool with_keys, int depth) {
    if (json_take(json, last)) return true;
    do {
        if (with_keys && !(json_string(json) && json_take(json, ':'))) return false;
        if (!json_value(json, depth - 1)) return false;
    } while (json_take(json, ','));
    return json_take(json, last);
}

static inline bool json_value(json_t *json, int depth) {
    if (depth == 0) return false;
    if (json_take(json, '{')) return json_members(json, '}', true, depth);
    if (json_take(json, '[')) return json_members(json, ']', false, depth);
    if (json->at < json->end && *json->at == '"') return json_string(json);
    const char *from = json->at;
    while (json->at < json->end && *json->at && strchr("+-.0123456789Eaeflnrstu", *json->at)) json->at++;
    return json->at > from;
}

// The number at a key of the object that the text is.
static inline bool json_number(const char *text, size_t len, const char *key, double *number) {
    json_t json = {text, text + len};
    if (!json_take(&json, '{')) return false;
    do {
        json_space(&json);
        const char *name = json.at + 1;
        if (!json_string(&json)) return false;
        bool is_it = json.at - 1 - name == (long)strlen(key) && !memcmp(name, key, strlen(key));
        if (!json_take(&json, ':')) return false;
        json_space(&json);
        const char *value = json.at;
        if (!json_value(&json, JSON_DEPTH_MAX)) return false;
        if (!is_it) continue;
        char copy[64], *stop;
        size_t digits = json.at - value;
        if (digits >= sizeof copy || (*value != '-' && (*value < '0' || *value > '9'))) return false;
        memcpy(copy, value, digits);
        copy[digits] = 0;
        *number = strtod(copy, &stop);
        return *stop == 0;
    } while (json_take(&json, ','));
    return false;
}

// How many bytes there are up to the object's last brace, if the text is an object and nothing else.
static inline bool json_object_end(const char *text, size_t len, size_t *end, bool *is_empty) {
    json_t json = {text, text + len}, rest;
    if (!json_take(&json, '{')) return false;
    rest = json;
    *is_empty = json_take(&rest, '}');
    if (!json_members(&json, '}', true, JSON_DEPTH_MAX)) return false;
    *end = json.at - 1 - text;
    json_space(&json);
    return json.at == json.end;
}

#endif

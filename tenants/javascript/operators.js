// Operators in JavaScript, in the contract of Azure IoT Operations: a map and a filter.
//
// They know nothing of the host. Each is an object of the name of its interface, and a
// component may have one of each kind. What `process` throws refuses that message alone,
// if it is the contract's `error`: an object with a `message`, not an `Error`.

import { log } from 'wasm-graph:processor/logger@1.1.0';

const text = new TextDecoder('utf-8', { fatal: true });
const bytes = new TextEncoder();

function refuse(message) {
  throw { message };
}

function messageOf(data) {
  return data.tag === 'message' ? data.val : refuse('expected a message');
}

/** The JSON object that is a message's payload. */
function read(data) {
  const { tag, val } = messageOf(data).payload;
  let value;
  try {
    value = JSON.parse(text.decode(tag === 'buffer' ? val.read() : val));
  } catch (error) {
    refuse(`not JSON: ${error.message}`);
  }
  return value !== null && typeof value === 'object' ? value : refuse('not a JSON object');
}

/** The message with this payload. */
function write(data, value) {
  const payload = { tag: 'bytes', val: bytes.encode(JSON.stringify(value)) };
  return { tag: 'message', val: { ...messageOf(data), payload } };
}

/** Flattens an earthquake as the USGS gives it: what one asks about first, in one row. */
export const map = {
  init() {
    return true;
  },

  process(data) {
    const { id, properties, geometry } = read(data);
    const [longitude, latitude, depth] = geometry?.coordinates ?? refuse('no coordinates');
    const { mag, magType, place, time, tz } = properties ?? refuse('no properties');
    // "37km NNE of Amboy, Washington": after the last comma is what people look for.
    const region = place?.split(', ').at(-1) ?? null;
    return write(data, { id, time, tz, mag, magType, place, region, longitude, latitude, depth });
  },
};

let oneOf = { field: '', values: new Set() };

/** Passes what has one of the `values` (separated by commas) in its `field`. */
export const filter = {
  init({ properties }) {
    const { field, values } = Object.fromEntries(properties);
    if (field === undefined || values === undefined) {
      log('error', 'one-of', 'the parameters `field` and `values` must be given');
      return false;
    }
    oneOf = { field, values: new Set(values.split(',').map((value) => value.trim())) };
    return true;
  },

  process(data) {
    const value = read(data)[oneOf.field] ?? refuse(`no \`${oneOf.field}\``);
    return oneOf.values.has(String(value));
  },
};

// A map in Go, in the contract of Azure IoT Operations: adds the geohash of a place, a short
// text that begins like those of places nearby. It knows nothing of the host.
//
// Payloads are JSON objects with the numbers `latitude` and `longitude`. Parameters:
// `length` (1 to 12; 6) and `output` (the field that is added; `geohash`).

package export_wasm_graph_processor_map

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	. "go.bytecodealliance.org/pkg/wit/types"
	"wit_component/wasm_graph_processor_logger"
	. "wit_component/wasm_graph_processor_types"
)

const alphabet = "0123456789bcdefghjkmnpqrstuvwxyz"

var (
	length = 6
	output = "geohash"
)

func Init(configuration ModuleConfiguration) bool {
	for _, property := range configuration.Properties {
		switch property.F0 {
		case "length":
			number, err := strconv.Atoi(property.F1)
			if err != nil || number < 1 || 12 < number {
				wasm_graph_processor_logger.Log(wasm_graph_processor_logger.Level_Error, "geohash",
					fmt.Sprintf("`length` is from 1 to 12, not `%s`", property.F1))
				return false
			}
			length = number
		case "output":
			output = property.F1
		}
	}
	return true
}

func Process(data DataModel) Result[DataModel, Error] {
	if data.Tag() != DataModel_Message {
		return refuse(errors.New("expected a message"))
	}
	message := data.Message()
	payload, err := added(read(message.Payload))
	if err != nil {
		return refuse(err)
	}
	message.Payload = MakeBufferOrBytesBytes(payload)
	return Ok[DataModel, Error](MakeDataModelMessage(message))
}

func refuse(err error) Result[DataModel, Error] {
	return Err[DataModel, Error](Error{Message: err.Error()})
}

func read(place BufferOrBytes) []uint8 {
	if place.Tag() == BufferOrBytes_Bytes {
		return place.Bytes()
	}
	buffer := place.Buffer()
	defer buffer.Drop()
	return buffer.Read()
}

// The object with its geohash; what else is in it stays as it was written.
func added(payload []uint8) ([]uint8, error) {
	var object map[string]json.RawMessage
	var place struct{ Latitude, Longitude *float64 }
	if err := errors.Join(json.Unmarshal(payload, &object), json.Unmarshal(payload, &place)); err != nil {
		return nil, err
	}
	if object == nil || place.Latitude == nil || place.Longitude == nil {
		return nil, errors.New("no numbers `latitude` and `longitude`")
	}
	latitude, longitude := *place.Latitude, *place.Longitude
	if math.Abs(latitude) > 90 || math.Abs(longitude) > 180 {
		return nil, fmt.Errorf("no place on earth: %v, %v", latitude, longitude)
	}
	object[output] = strconv.AppendQuote(nil, geohash(latitude, longitude))
	return json.Marshal(object)
}

// Halves the longitudes and the latitudes that are left in turn; five halvings are a letter.
func geohash(latitude, longitude float64) string {
	ranges := [2][2]float64{{-180, 180}, {-90, 90}}
	hash := make([]byte, length)
	for i := range hash {
		letter := 0
		for bit := range 5 {
			axis := (5*i + bit) % 2
			value, span := [2]float64{longitude, latitude}[axis], &ranges[axis]
			middle := (span[0] + span[1]) / 2
			letter <<= 1
			if value >= middle {
				letter |= 1
				span[0] = middle
			} else {
				span[1] = middle
			}
		}
		hash[i] = alphabet[letter]
	}
	return string(hash)
}

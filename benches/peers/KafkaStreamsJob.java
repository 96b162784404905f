// The job of the bench `kafka` in Kafka Streams: readings of more than 50 °C, with Fahrenheit
// added, from one topic to another, acks=all, at least once. One stream thread, as the host
// has one shard.

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

public class KafkaStreamsJob {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] args) {
        String address = args[0], input = args[1], output = args[2];
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, output);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, address);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("STATE_DIR"));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.producerPrefix("acks"), "all");
        settings.put(StreamsConfig.producerPrefix("linger.ms"), "5");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
            .mapValues(KafkaStreamsJob::read)
            .filter((key, reading) -> reading.get("temperature").asDouble() > 50.0)
            .mapValues(KafkaStreamsJob::convert)
            .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static JsonNode read(byte[] value) {
        try {
            return JSON.readTree(value);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static byte[] convert(JsonNode reading) {
        double celsius = reading.get("temperature").asDouble();
        ObjectNode hot = ((ObjectNode) reading).put("fahrenheit", celsius * 1.8 + 32.0);
        try {
            return JSON.writeValueAsBytes(hot);
        } catch (JsonProcessingException error) {
            throw new UncheckedIOException(error);
        }
    }
}

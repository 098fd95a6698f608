import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Protocol.Command;

/** Push orders with Jedis. A login is the queue's name and password; Redis' own commands do the rest. */
public class Producer {
    public static void main(String[] words) {
        String queue = env("QUEUE", "orders");
        DefaultJedisClientConfig login =
            DefaultJedisClientConfig.builder().user(queue).password(env("PASSWORD", "secret")).build();
        try (Jedis bus = new Jedis(HostAndPort.from(env("PEPPERBUS", "127.0.0.1:12017")), login)) {
            Object answer = bus.sendCommand(Command.LPUSH, queue + "/new", "{\"order\":1}");
            System.out.println("pushed " + new String((byte[]) answer)); // JSON: jobs, inTraceId, error
            bus.sendCommand(Command.ZADD, queue, "+1", "{\"order\":2}"); // not before in a second
            bus.rpush(queue, "{\"order\":3}"); // ahead of all that waits
            System.out.println("and two more");
        }
    }

    private static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }
}

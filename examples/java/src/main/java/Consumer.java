import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** An HTTP service that the bus posts jobs to: the JDK alone. */
public class Consumer {
    private static final Set<String> DONE = ConcurrentHashMap.newKeySet(); // yours is a table where the work is
    private static final Pattern ORDER = Pattern.compile("\"order\"\\s*:\\s*(\\d+)"); // yours is a JSON parser

    public static void main(String[] words) throws IOException {
        String port = System.getenv("PORT");
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port == null ? 8080 : Integer.parseInt(port)), 0);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.createContext("/", Consumer::job);
        server.start();
    }

    private static void job(HttpExchange exchange) throws IOException {
        String content = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        Matcher order = ORDER.matcher(content);
        if (!order.find()) {
            answer(exchange, 422, "no order in it"); // no further try will change that
            return;
        }
        try {
            work(exchange.getRequestHeaders().getFirst("X-Pepperbus-Job-Id"), order.group(1));
            answer(exchange, 200, "");
        } catch (RuntimeException error) {
            answer(exchange, 500, error.toString()); // tried again, this text is shown
        }
    }

    private static void work(String id, String order) {
        if (DONE.add(id)) {
            System.out.println("order " + order);
        }
    }

    private static void answer(HttpExchange exchange, int status, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}

<?php
/**
 * Pepperbus for PHP 7.1 and later: one file, nothing to install.
 *
 *     $bus = new Pepperbus\Producer('127.0.0.1:12017', 'orders', 'password');
 *     $id = $bus->push(array('order' => 17));
 *
 *     $consumer = new Pepperbus\Consumer();
 *     $consumer->on('orders/mail', function (Pepperbus\Job $job) { mail_it($job->json()); });
 *     $consumer->run();
 */

namespace Pepperbus;

const TRACEPARENT = '/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/D';   // W3C Trace Context

class Exception extends \RuntimeException
{
}

/** Nothing of this push was stored: it may be repeated without fear of a duplicate. */
class NotStored extends Exception
{
}

/** No answer came: the job may or may not be stored. */
class Unknown extends Exception
{
}

/** Puts jobs into one queue. Connects at the first push and again after a broken connection. */
class Producer
{
    private $address;
    private $queue;
    private $password;
    private $timeout;
    private $stream = null;
    private $traceparent = '';
    private $told = '';   // the trace that the connection knows of

    /** @param string $address host:port, tls://host:port or unix:/path; an empty password: the queue needs none */
    public function __construct(string $address, string $queue, string $password = '', float $timeout = 5.0)
    {
        if (strpos($address, 'unix:') === 0 && strpos($address, 'unix://') !== 0) {
            $address = 'unix://' . substr($address, 5);
        } elseif (strpos($address, '://') === false) {
            $address = 'tcp://' . $address;
        }
        $this->address = $address;
        $this->queue = $queue;
        $this->password = $password;
        $this->timeout = $timeout;
    }

    /**
     * Push one job; a string goes as it is, anything else as JSON. Returns the job's id (20 digits).
     *
     * `$isNew` false: the queue has `unique`, the job was there already, the id is that one's and nothing was stored.
     * null: a trace is set, and the answer does not tell.
     */
    public function push($content, &$isNew = null): string
    {
        $ids = $this->ids(array('LPUSH', $this->queue . '/default', $this->bytes($content)), $trace);
        // ids rise, and a command's trace is made before its jobs
        $isNew = $this->traceparent === '' ? strcmp($ids[0], $trace) > 0 : null;
        return $ids[0];
    }

    /**
     * The W3C trace that the pushes from here on belong to, '' = none: $_SERVER['HTTP_TRACEPARENT'] of the request that
     * pushes, or $job->traceparent of the job that does. Consumers get it as HTTP_TRACEPARENT.
     */
    public function trace(string $traceparent): self
    {
        // it may come from outside: a wrong one is none, and keeps no job from being stored
        $this->traceparent = preg_match(TRACEPARENT, $traceparent) ? $traceparent : '';
        return $this;
    }

    /** Push one job ahead of all that wait. */
    public function ahead($content): string
    {
        $ids = $this->ids(array('RPUSH', $this->queue . '/default', $this->bytes($content)));
        return $ids[0];
    }

    /** Push several jobs, all or nothing. Returns their ids in the same order. */
    public function pushMany(array $contents): array
    {
        if (!$contents) {
            return array();
        }
        return $this->ids(array_merge(array('LPUSH', $this->queue . '/default'), array_map(array($this, 'bytes'), $contents)));
    }

    /** Push one job that starts no earlier than at this unix time (seconds). */
    public function at(int $when, $content): string
    {
        return $this->later((string) $when, $content);
    }

    /** Push one job that starts no earlier than in this many seconds. */
    public function delay(int $seconds, $content): string
    {
        return $this->later('+' . max($seconds, 0), $content);
    }

    public function close(): void
    {
        if ($this->stream) {
            fclose($this->stream);
        }
        $this->stream = null;
    }

    private function later(string $score, $content): string
    {
        $ids = $this->ids(array('ZADD', $this->queue . '/default', $score, $this->bytes($content)));
        return $ids[0];
    }

    private function bytes($content): string
    {
        if (is_string($content)) {
            return $content;
        }
        $json = json_encode($content, JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
        if ($json === false) {
            throw new NotStored('the job cannot be written as JSON: ' . json_last_error_msg());
        }
        return $json;
    }

    private function ids(array $command, &$trace = null): array
    {
        $answer = json_decode((string) $this->command($command), true);
        if (!is_array($answer) || !array_key_exists('error', $answer)) {
            throw new Unknown('the answer to the push is no answer of a Pepperbus');
        }
        if ($answer['error'] !== '') {
            throw $this->error($answer['error']);
        }
        $trace = (string) $answer['inTraceId'];
        return $answer['jobs'];
    }

    private function command(array $words)
    {
        $this->connect();
        return $this->exchange($words);
    }

    private function connect(): void
    {
        if ($this->stream && !feof($this->stream)) {
            try {
                $this->tell();
                return;
            } catch (Exception $broken) {
                // nothing of the push was sent: a new connection, then
            }
        }
        $this->close();
        $stream = @stream_socket_client($this->address, $number, $text, $this->timeout);
        if (!$stream) {
            throw new NotStored("{$this->address}: $text");
        }
        $seconds = (int) $this->timeout;
        stream_set_timeout($stream, $seconds, (int) (($this->timeout - $seconds) * 1e6));
        $this->stream = $stream;
        $this->told = '';
        try {
            if ($this->password !== '') {
                $this->exchange(array('AUTH', $this->queue . ':' . $this->password));
            }
            $this->tell();
        } catch (Exception $refused) {
            $this->close();
            throw new NotStored("login to {$this->queue}: " . $refused->getMessage());
        }
    }

    private function tell(): void
    {
        if ($this->told !== $this->traceparent) {
            $this->exchange(array('CLIENT', 'TRACEPARENT', $this->traceparent));
            $this->told = $this->traceparent;
        }
    }

    private function exchange(array $words)
    {
        $request = '*' . count($words) . "\r\n";
        foreach ($words as $word) {
            $request .= '$' . strlen($word) . "\r\n" . $word . "\r\n";
        }
        for ($sent = 0; $sent < strlen($request); $sent += $n) {
            $n = @fwrite($this->stream, $sent ? substr($request, $sent) : $request);
            if (!$n) {
                throw $this->broken();
            }
        }
        return $this->reply();
    }

    private function reply()
    {
        $line = @fgets($this->stream);
        if ($line === false || substr($line, -2) !== "\r\n") {
            throw $this->broken();
        }
        $rest = substr($line, 1, -2);
        switch ($line[0]) {
            case '+':
                return $rest;
            case ':':
                return (int) $rest;
            case '-':
                throw $this->error($rest);
            case '$':
                $length = (int) $rest;
                if ($length < 0) {
                    return null;
                }
                $data = @stream_get_contents($this->stream, $length + 2);
                if ($data === false || strlen($data) !== $length + 2) {
                    throw $this->broken();
                }
                return substr($data, 0, $length);
        }
        throw $this->broken();
    }

    private function error(string $text): Exception
    {
        return strpos($text, 'UNKNOWN') === 0 ? new Unknown($text) : new NotStored($text);
    }

    private function broken(): Unknown
    {
        $this->close();
        return new Unknown("{$this->address}: no answer; the job may or may not be stored");
    }
}

/** One job as its consumer gets it. */
class Job
{
    public $id;
    public $queue;
    public $topic;
    public $content;
    public $attempt;
    public $trace;
    public $pushTrace;
    public $traceparent;

    public function __construct(array $fields, string $queue, string $topic, string $trace)
    {
        $content = (string) $fields['content'];
        $this->content = ($fields['encoding'] ?? '') === 'base64' ? base64_decode($content) : $content;
        $this->id = (string) $fields['id'];
        $this->attempt = (int) $fields['RetryTimes'];
        $this->pushTrace = (string) ($fields['inTraceId'] ?? '');
        $this->traceparent = preg_match(TRACEPARENT, $this->pushTrace) ? $this->pushTrace : '';
        $this->queue = $queue;
        $this->topic = $topic;
        $this->trace = $trace;
    }

    /** The content decoded from JSON. Throws Dead for content that is no JSON: no attempt will change that. */
    public function json()
    {
        $value = json_decode($this->content, true);
        if ($value === null && json_last_error() !== JSON_ERROR_NONE) {
            throw new Dead('the content is no JSON: ' . json_last_error_msg());
        }
        return $value;
    }
}

/** Throw it in a handler: the job can never work, set it aside at once. */
class Dead extends Exception
{
}

/** Throw it in a handler: the job goes back unspent, and the topic pauses until somebody resumes it. */
class Pause extends Exception
{
}

/** Throw it in a handler: try again, not before this many seconds. */
class Later extends Exception
{
    public $seconds;

    public function __construct(int $seconds, string $reason = 'later')
    {
        parent::__construct($reason);
        $this->seconds = $seconds;
    }
}

/**
 * Answers the bus. Output of the handlers is buffered; the verdict is sent last, so nothing is done before it is done.
 * A fatal error, exit() in a handler and an uncaught exception all count as a failed attempt.
 */
class Consumer
{
    private $handlers = array();
    private $answered = true;

    /** @param string $name queue/topic */
    public function on(string $name, callable $handler): self
    {
        $this->handlers[$name] = $handler;
        return $this;
    }

    /** Handle the request that started this script. Call it last. */
    public function run(): void
    {
        $this->answered = false;
        ob_start();
        register_shutdown_function(array($this, 'shutdown'));
        try {
            $this->handle();
        } catch (Dead $dead) {
            $this->fail($dead, 'dead');
        } catch (Pause $pause) {
            $this->fail($pause, 'pause');
        } catch (Later $later) {
            header('Retry-After: ' . $later->seconds);
            $this->fail($later, 'retry');
        } catch (\Throwable $error) {
            $this->fail($error, '');
        }
    }

    /**
     * Run `$work` once for this id, however often the job is delivered: the mark and the work are one transaction of
     * `$db`. Returns false when it had been done before. Needs: CREATE TABLE pepperbus_done (id VARCHAR(80) PRIMARY KEY).
     */
    public static function once(\PDO $db, string $id, callable $work): bool
    {
        $db->setAttribute(\PDO::ATTR_ERRMODE, \PDO::ERRMODE_EXCEPTION);
        $db->beginTransaction();
        try {
            try {
                $db->prepare('INSERT INTO pepperbus_done (id) VALUES (?)')->execute(array($id));
            } catch (\PDOException $error) {
                if (strpos((string) $error->getCode(), '23') !== 0) {   // SQLSTATE 23…: it is there already
                    throw $error;
                }
                $db->rollBack();
                return false;
            }
            $work();
            $db->commit();
            return true;
        } catch (\Throwable $error) {
            if ($db->inTransaction()) {
                $db->rollBack();
            }
            throw $error;
        }
    }

    /** Called by PHP at the end of the script; not for you. */
    public function shutdown(): void
    {
        if ($this->answered) {
            return;
        }
        $error = error_get_last();
        $fatal = $error && ($error['type'] & (E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR));
        $text = $fatal ? "{$error['message']} in {$error['file']}:{$error['line']}" : 'the script ended by exit() within a handler';
        $this->answer(500, $fatal ? 'fatal' : 'exit', $text);
    }

    private function handle(): void
    {
        if (($_POST['IS_PEPPER_BUS_REQUEST'] ?? '') !== 'true') {
            $this->answer(500, 'request', $this->bodyTrouble() ?: 'this is no request of a Pepperbus');
            return;
        }
        if (($_POST['type'] ?? '') === 'ping') {
            $names = implode(',', array_keys($this->handlers));
            header('Consume-Topics: ' . $names);
            $this->answer(200, '', $names);
            return;
        }
        if ($trouble = $this->bodyTrouble()) {
            $this->answer(500, 'body', $trouble);
            return;
        }
        $name = $_POST['queue'] . '/' . $_POST['topic'];
        if (!isset($this->handlers[$name])) {
            $this->answer(404, 'unknown', "$name is not handled here");
            return;
        }
        $jobs = json_decode($_POST['jobs'], true);
        if (!is_array($jobs)) {
            $this->answer(500, 'body', 'jobs is no JSON: ' . json_last_error_msg());
            return;
        }
        $failed = array();
        foreach ($jobs as $fields) {
            $job = new Job($fields, $_POST['queue'], $_POST['topic'], $_POST['outTraceId'] ?? '');
            try {
                call_user_func($this->handlers[$name], $job);
            } catch (\Throwable $error) {
                if (count($jobs) === 1) {
                    throw $error;
                }
                $failed[] = $job->id;
                $last = $error;
            }
        }
        if ($failed) {                                  // with `chunk`: the others are done
            header('X-Pepperbus-Verdict: retry');
            header('Failed-Jobs: ' . implode(',', $failed));
            $this->fail($last, '');
            return;
        }
        $this->answer(200, '', null);
    }

    /** php-fpm runs a script on a body that was cut off: length and digest tell. */
    private function bodyTrouble(): string
    {
        if (!isset($_SERVER['PEPPERBUS_SHA256'])) {
            return '';
        }
        $body = file_get_contents('php://input');
        if (strlen($body) !== (int) $_SERVER['PEPPERBUS_LENGTH']) {
            return 'the body has ' . strlen($body) . " bytes, {$_SERVER['PEPPERBUS_LENGTH']} were sent";
        }
        return hash_equals($_SERVER['PEPPERBUS_SHA256'], hash('sha256', $body)) ? '' : 'the body is not what was sent';
    }

    private function fail(\Throwable $error, string $verdict): void
    {
        if ($verdict !== '') {
            header("X-Pepperbus-Verdict: $verdict");
        }
        $code = $error->getCode() ? (string) $error->getCode() : basename(str_replace('\\', '/', get_class($error)));
        $text = "{$error->getMessage()} in {$error->getFile()}:{$error->getLine()}";
        $this->answer(500, preg_replace('/[^A-Za-z0-9_.-]/', '_', $code), $text);
    }

    /** The headers are the verdict and go last. `$body` null: what the handlers printed. */
    private function answer(int $code, string $errorCode, $body): void
    {
        $this->answered = true;
        header("Code: $code");
        if ($errorCode !== '') {
            header("Error-Code: $errorCode");
        }
        if ($body !== null) {
            while (ob_get_level()) {
                ob_end_clean();
            }
            echo $body;
        }
        while (ob_get_level()) {
            ob_end_flush();
        }
    }
}

/**
 * For `run = command` with `feed = stdin`: the bus starts the script, and it gets one job after the other.
 *
 *     $worker = new Pepperbus\Worker();
 *     $worker->on('orders/mail', function (Pepperbus\Job $job) { mail_it($job->json()); });
 *     $worker->run();                              // returns when the bus wants it to leave
 *
 * Handlers speak as those of a Consumer do: they return, or throw. What they print is kept with the attempt. A fatal error
 * or exit() ends the process: the attempt has failed and the bus starts another.
 */
class Worker
{
    private $handlers = array();

    /** @param string $name queue/topic */
    public function on(string $name, callable $handler): self
    {
        $this->handlers[$name] = $handler;
        return $this;
    }

    public function run(): void
    {
        $verdicts = @fopen('php://fd/3', 'w');
        if (!$verdicts) {
            throw new Exception('there is no descriptor 3: this script is started by the bus, with feed = stdin');
        }
        while (($line = fgets(STDIN)) !== false) {
            $fields = json_decode($line, true);
            $verdict = array('id' => $fields['id'] ?? '') + $this->handle($fields);
            fwrite($verdicts, json_encode($verdict, JSON_PARTIAL_OUTPUT_ON_ERROR) . "\n");
        }
    }

    private function handle($fields): array
    {
        if (!is_array($fields)) {
            return array('verdict' => 'retry', 'reason' => 'the line is no JSON: ' . json_last_error_msg());
        }
        $name = $fields['queue'] . '/' . $fields['topic'];
        if (!isset($this->handlers[$name])) {
            return array('verdict' => 'retry', 'code' => 'unknown', 'reason' => "$name is not handled here");
        }
        try {
            call_user_func($this->handlers[$name], new Job($fields, $fields['queue'], $fields['topic'], $fields['outTraceId']));
            return array('verdict' => 'done');
        } catch (Dead $dead) {
            return $this->failed($dead, 'dead');
        } catch (Pause $pause) {
            return $this->failed($pause, 'pause');
        } catch (Later $later) {
            return $this->failed($later, 'retry') + array('after' => $later->seconds);
        } catch (\Throwable $error) {
            return $this->failed($error, 'retry');
        }
    }

    private function failed(\Throwable $error, string $verdict): array
    {
        $code = $error->getCode() ? (string) $error->getCode() : basename(str_replace('\\', '/', get_class($error)));
        $reason = "{$error->getMessage()} in {$error->getFile()}:{$error->getLine()}";
        return array('verdict' => $verdict, 'code' => $code, 'reason' => $reason);
    }
}

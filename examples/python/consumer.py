"""An HTTP service that the bus posts jobs to: the standard library alone."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

done = set()  # yours is a table in the database that the work is in


def work(job_id, order):
    if job_id not in done:
        print("order", order["order"], flush=True)
        done.add(job_id)


class Jobs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection: the bus uses it again

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            work(self.headers["X-Pepperbus-Job-Id"], json.loads(content))
            self.answer(200, "")
        except ValueError as error:
            self.answer(422, f"no JSON: {error}")  # no further try will change that
        except Exception as error:
            self.answer(500, f"{type(error).__name__}: {error}")  # tried again, this text is shown

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Jobs).serve_forever()

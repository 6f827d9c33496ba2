"""A receiver of OTLP over HTTP that reads messages with the OpenTelemetry project's own Python package.

    python3 receiver.py PORT OUT [REFUSE]

Appends one JSON object a message to OUT: {"path": ..., "message": ...}. The first REFUSE messages are answered with
503 and left out. Needs the package opentelemetry-proto.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

KINDS = {
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
}


class Handler(BaseHTTPRequestHandler):
    refuse = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request, response = KINDS[self.path]
        assert self.headers["Content-Type"] == "application/x-protobuf"
        message = request.FromString(body)
        if Handler.refuse > 0:
            Handler.refuse -= 1
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.end_headers()
            return
        line = {"path": self.path, "token": self.headers.get("Authorization"), "message": MessageToDict(message)}
        with open(sys.argv[2], "a") as out:
            out.write(json.dumps(line) + "\n")
        answer = response().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


Handler.refuse = int(sys.argv[3]) if len(sys.argv) > 3 else 0
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

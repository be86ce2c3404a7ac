"""Registers as Python programs do: urllib (which adds a form's content type to a body), and http.client (which adds
none). Python's json writes lists and numbers as they are; keys in any letter case have to do."""

import http.client
import json
import sys
import urllib.error
import urllib.request

BASE = "http://127.0.0.1:8500"
failed = 0


def equal(got, wanted, what):
    global failed
    if got == wanted:
        print(f"ok    {what}")
    else:
        failed += 1
        print(f"FAIL  {what}: got {got!r}, wanted {wanted!r}")


def call(method, path, body=None, headers=None):
    """By urllib, whose default content type for a body is application/x-www-form-urlencoded."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def bare(method, path, body=None):
    """By http.client, with no content type at all."""
    connection = http.client.HTTPConnection("127.0.0.1", 8500, timeout=10)
    connection.request(method, path, body=body)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


DEFINITION = {"ID": "py-1", "Name": "py", "Address": "192.0.2.40", "Port": 9000, "Tags": ["a"],
              "Check": {"TTL": "30s", "Status": "passing"}}
equal(call("PUT", "/v1/agent/service/register", DEFINITION)[0], 200, "urllib registers, with a form's content type")
equal(call("PUT", "/v1/agent/service/register", {key.lower(): value for key, value in DEFINITION.items()})[0], 200,
      "lower-case keys")
equal(bare("PUT", "/v1/agent/service/register", json.dumps(DEFINITION))[0], 200, "http.client registers, with none")
status, text, headers = call("GET", "/v1/health/service/py?passing")
equal(status, 200, "health answers")
found = json.loads(text)
equal([(one["Service"]["ID"], one["Service"]["Port"], one["Service"]["Address"]) for one in found],
      [("py-1", 9000, "192.0.2.40")], "health has the instance")
index = int(headers["X-Consul-Index"])
equal(index > 0, True, "X-Consul-Index")
equal(headers["X-Consul-KnownLeader"], "true", "X-Consul-KnownLeader")
equal(headers["Content-Type"], "application/json", "content type of an answer")
equal(call("PUT", "/v1/agent/check/fail/service:py-1?note=no")[0], 200, "fail")
equal(json.loads(call("GET", "/v1/health/service/py?passing")[1]), [], "and nobody passes")
equal(call("PUT", "/v1/agent/check/update/service:py-1", {"Status": "warning", "Output": "hm"})[0], 200, "update")
equal(json.loads(call("GET", f"/v1/health/service/py?index={index}&wait=5s")[1])[0]["Checks"][-1]["Output"], "hm",
      "a blocking read past the index has the new output")
equal(call("GET", "/v1/agent/health/service/id/py-1?format=text")[:2], (429, "warning"), "agent health as text")

for body, part, what in (
        (b"{", "Request decode failed", "broken JSON"),
        (b'{"Name": 7}', "Request decode failed", "a number for a name"),
        (b'{"Name": "x", "Nmae": "y"}', 'unknown field "Nmae"', "an unknown key"),
        (b'{"Name": "x", "Check": {"HTTP": "http://192.0.2.1/", "Interval": "10"}}', "missing unit in duration",
         "a duration without a unit"),
        (b'{"Name": "x", "Check": {"HTTP": "http://192.0.2.1/", "Interval": "-10s"}}', "negative", "a negative interval"),
        (b'{"Name": "x", "Port": 70000}', "70000", "port 70000"),
        (b'{"Name": "x", "Weights": {"Passing": 70000, "Warning": 1}}', "Weight", "a weight of 70000"),
        (b'{"ID": "a\\u0001b", "Name": "x"}', "", "a control character in an ID"),
        (b"", "", "no body")):
    status, text = bare("PUT", "/v1/agent/service/register", body)
    equal((status, part in text and text != ""), (400, True), f"{what}: 400 and a reason ({text.strip()[:90]})")
equal(bare("GET", "/v1/agent/service/register")[0], 405, "GET of a write is 405")
equal(bare("GET", "/v1/nothing")[0], 404, "an unknown path is 404")
equal(bare("PUT", "/v1/agent/service/deregister/py-1")[0], 200, "deregister")
equal(json.loads(bare("GET", "/v1/agent/services")[1]), {}, "nothing is left, and no bad body registered anything")

# A page in a browser must not be able to register: a foreign origin, and a name that was made to point here.
status, text, headers = call("PUT", "/v1/agent/service/register", DEFINITION, {"Origin": "http://evil.example"})
equal(status, 403, "a write from a foreign origin is refused")
equal(headers.get("Access-Control-Allow-Origin"), None, "and no CORS header is sent")
status, text, _ = call("GET", "/v1/agent/services", headers={"Host": "evil.example:8500"})
equal(status in (400, 403, 421), True, f"a foreign Host is refused ({status})")
equal(json.loads(bare("GET", "/v1/agent/services")[1]), {}, "and registered nothing")
sys.exit(1 if failed else 0)

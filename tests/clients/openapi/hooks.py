"""What the fuzzer is told about Rollcall: blocking queries are short, and an error of 5xx must begin as the document says."""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    """A wait of hours is tested elsewhere; here it would be all that is tested."""
    if isinstance(query, dict) and ("index" in query or "hash" in query):
        query["wait"] = "5ms"
    return query


@schemathesis.check
def server_errors_are_named(context, response, case):
    """No 5xx but those that Consul's contract names, each with its text."""
    if response.status_code < 500:
        return
    answers = case.operation.definition.raw["responses"]
    answer = answers.get(str(response.status_code))
    assert answer is not None, f"{response.status_code} is not in the document"
    texts = answer.get("x-texts")
    assert texts is None or any(response.text.startswith(text) for text in texts), \
        f"{response.status_code} with a text that is not named: {response.text!r}"

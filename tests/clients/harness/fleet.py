"""The services that the DNS clients of every language are asked to find, so that all of them are held to the same."""


def register_fleet(http):
    """Registers over HTTP, without a content type:

    - web: 192.0.2.11:8001 (tag v1, weight 1) and 192.0.2.12:8002 (tag v1, weight 5);
    - six: [2001:db8::66]:8066, IPv6 only;
    - dual: 192.0.2.13 and 2001:db8::13, port 8013;
    - idle: one instance, critical;
    - many: 120 instances, 192.0.2.21:9000 to 9119, too many for a UDP answer."""
    http.register(ID="web-1", Name="web", Address="192.0.2.11", Port=8001, Tags=["v1"], Meta={"zone": "a"})
    http.register(ID="web-2", Name="web", Address="192.0.2.12", Port=8002, Tags=["v1"],
                  Weights={"Passing": 5, "Warning": 1})
    http.register(ID="six-1", Name="six", Address="2001:db8::66", Port=8066)
    http.register(ID="dual-1", Name="dual", Address="192.0.2.13", Port=8013,
                  TaggedAddresses={"lan_ipv6": {"Address": "2001:db8::13", "Port": 8013}})
    http.register(ID="idle-1", Name="idle", Address="192.0.2.14", Port=8014, Check={"TTL": "1h"})
    for number in range(120):
        http.register(ID=f"many-{number}", Name="many", Address="192.0.2.21", Port=9000 + number)

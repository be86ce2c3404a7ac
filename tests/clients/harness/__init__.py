"""What the real-client tests share: hosts made of network namespaces, processes that are always ended, questions
asked from inside a host, and a report. Needs root (for the namespaces) and dnspython."""

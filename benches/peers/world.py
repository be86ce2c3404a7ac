"""The services of records.py in every server, and the question sets beside them."""

import servers
from measure import play, say
from records import INSTANCES, A, ask, lines, name_of_last, question_sets, registrations, zone


def rollcall(scratch, services, config=""):
    """Rollcall with the services registered over HTTP."""
    folder = scratch / "rollcall"
    folder.mkdir()
    server = servers.rollcall(folder, config)
    requests = scratch / "registrations"
    requests.write_bytes(registrations(services))
    took = play(server, requests)
    say(f"{took['ok']:,} registrations in {took['seconds']:.1f} s")
    return server


def peers(scratch, services, makers):
    """The others, with the same records in a master file."""
    master = scratch / "zone"
    master.write_text(zone(services))
    found = []
    for make in makers:
        folder = scratch / make.__name__
        folder.mkdir()
        found.append(make(folder, master))
    for server in found:
        server.wait(lambda: (answer := ask(server.port, name_of_last(services), A)) and answer[7] == INSTANCES)
    return found


def echo(scratch):
    folder = scratch / "echo"
    folder.mkdir()
    return servers.echo(folder)


def questions(scratch, services):
    """The files of the question sets, by name."""
    files = {}
    for name, asked in question_sets(services).items():
        files[name] = scratch / f"{name}.questions"
        files[name].write_text(lines(asked))
    return files

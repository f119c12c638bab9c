"""Kafka's failover at its default settings, as the peers' own script measures it, for a number of rounds.

Arguments: the folder of the peers' scripts, and the rounds. Prints the script's CSV.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

peers, rounds = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
kafka = peers / "kafka"
cache = pathlib.Path(os.environ.get("PEERS_CACHE") or pathlib.Path(tempfile.gettempdir(), "millrace-peers")) / "kafka"
cache.mkdir(parents=True, exist_ok=True)
(cache / "failover-pom.xml").write_bytes((kafka / "pom.xml").read_bytes())
subprocess.run(["mvn", "-q", "-B", "-f", str(cache / "failover-pom.xml"), f"-Dmaven.repo.local={cache}/m2", "dependency:build-classpath",
                f"-Dmdep.outputFile={cache}/classpath", "-Dmdep.pathSeparator=:"], check=True, stdout=sys.stderr)
os.environ["CLASSPATH"] = (cache / "classpath").read_text()
os.environ["ONLY"] = "nothing: its main runs as it is imported, and prints the header"
sys.path[:0] = [str(kafka), str(peers)]
import bench  # noqa: E402
import measure  # noqa: E402

cluster = bench.Cluster(3, "page cache")
cluster.start(range(1, 4))
cluster.failover(rounds)
measure.stop(list(cluster.servers.values()))

"""Judges Kubernetes manifests: standard input is YAML, each argument a folder of JSON schemas of one version of Kubernetes.

Prints the documents as a JSON list for the test to look at. What breaks a schema goes to standard error, and fails.
"""
import json
import pathlib
import sys

import jsonschema_rs
import yaml

# Kinds that are no part of Kubernetes itself, and what declares them.
FOREIGN = {("monitoring.coreos.com/v1", "ServiceMonitor")}

documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
wrong = 0
for folder in map(pathlib.Path, sys.argv[1:]):
    definitions = json.loads((folder / "_definitions.json").read_text())
    for document in documents:
        kind, version = document["kind"], document["apiVersion"]
        if (version, kind) in FOREIGN:
            continue
        group, _, number = version.rpartition("/")
        # As in "statefulset-apps-v1", and "service-v1".
        name = "-".join(filter(None, [kind.lower(), group.split(".")[0], number]))
        schema = json.loads((folder / f"{name}.json").read_text())
        registry = jsonschema_rs.Registry([("https://schemas/api/_definitions.json", definitions)])
        validator = jsonschema_rs.validator_for(schema, registry=registry, base_uri="https://schemas/")
        for error in validator.iter_errors(document):
            where = "/".join(map(str, error.instance_path))
            print(f"{folder.name}: {kind} {document['metadata']['name']}: {where}: {error.message}", file=sys.stderr)
            wrong += 1
json.dump(documents, sys.stdout)
sys.exit(1 if wrong else 0)

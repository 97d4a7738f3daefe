"""Calls a cluster through Ganeti's own RAPI client, which must work unchanged.

Arguments: host, port, user, password, CA file, and the names of two nodes, a
normal one that may be promoted and one that is a candidate. Prints one line a
call that did what it does in Ganeti; ends with a traceback otherwise.
"""

import sys

import pycurl
from ganeti.rapi import client, client_utils

host, port, user, password, ca, normal, candidate = sys.argv[1:]
count = 0


def ok(what, *details):
    global count
    count += 1
    print("ok", what, *details)


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except client.GanetiApiError as err:
        assert err.code == code, (code, err.code, str(err))
        return str(err)
    raise AssertionError("%s was not refused" % call)


def job(number, status=client.JOB_STATUS_SUCCESS):
    """Waits for a job as scripts do, and checks how it ended."""
    assert isinstance(number, int), number
    assert c.WaitForJobCompletion(number, period=0.1, retries=600) == (status == client.JOB_STATUS_SUCCESS)
    got = c.GetJobStatus(number)
    assert got["status"] == status, got
    return got


client.UsesRapiClient(lambda: None)()
verifying = client.GenericCurlConfig(cafile=ca, use_curl_cabundle=False, verify_hostname=False)
c = client.GanetiRapiClient(host, port=int(port), username=user, password=password, curl_config_fn=verifying)

assert c.GetVersion() == 2
ok("GetVersion")
features = c.GetFeatures()
assert client.NODE_EVAC_RES1 in features and client.INST_CREATE_REQV1 in features, features
ok("GetFeatures", len(features))
info = c.GetInfo()
for key in ("name", "master", "candidate_pool_size", "tags", "uuid", "ctime", "mtime", "software_version",
            "enabled_hypervisors", "default_iallocator", "modify_ssh_setup", "ssh_key_type", "ssh_key_bits", "master_netdev"):
    assert key in info, key
ok("GetInfo", info["name"])

names = c.GetNodes()
assert normal in names and candidate in names and info["master"] in names, names
ok("GetNodes", len(names))
bulk = c.GetNodes(bulk=True)
assert sorted(n["name"] for n in bulk) == sorted(names)
for key in ("name", "offline", "master_candidate", "drained", "pip", "sip", "role", "master_capable", "vm_capable",
            "ndparams", "pinst_cnt", "sinst_cnt", "pinst_list", "sinst_list", "mtotal", "mfree", "dtotal", "dfree",
            "ctotal", "ctime", "mtime", "uuid", "serial_no", "tags", "group.uuid"):
    assert all(key in n for n in bulk), key
ok("GetNodes bulk")
node = c.GetNode(normal)
assert node["name"] == normal and node["role"] == "R", node
ok("GetNode")
refused(404, c.GetNode, "nosuch.example")
ok("GetNode of none")
assert c.GetNodeRole(normal) == "regular" and c.GetNodeRole(candidate) == "master-candidate"
assert c.GetNodeRole(info["master"]) == "master"
ok("GetNodeRole")

job(c.SetNodeRole(normal, "master-candidate"))
assert c.GetNodeRole(normal) == "master-candidate"
job(c.SetNodeRole(normal, "regular"))
assert c.GetNodeRole(normal) == "regular"
job(c.SetNodeRole(normal, "drained", force=True))
assert c.GetNode(normal)["drained"] is True
job(c.SetNodeRole(normal, "regular", auto_promote=True))
ok("SetNodeRole")
assert "sorry" in refused(400, c.SetNodeRole, normal, "sorry")
refused(400, c.SetNodeRole, normal, "master")
ok("SetNodeRole refused")
failed = job(c.ModifyNode(info["master"], offline=True), client.JOB_STATUS_ERROR)
assert failed["opresult"][0][0] == "OpPrereqError", failed["opresult"]
ok("a job that fails", failed["opresult"][0][1][0])
job(c.ModifyNode(normal, vm_capable=False))
assert c.GetNode(normal)["vm_capable"] is False
job(c.ModifyNode(normal, vm_capable=True))
ok("ModifyNode")

job(c.AddNodeTags(normal, ["rack:3", "blue"]))
assert sorted(c.GetNodeTags(normal)) == ["blue", "rack:3"]
job(c.DeleteNodeTags(normal, ["blue", "rack:3"]))
assert c.GetNodeTags(normal) == []
dry = c.AddNodeTags(normal, ["never"], dry_run=True)
job(dry)
assert c.GetNodeTags(normal) == []
ok("node tags")
job(c.AddClusterTags(["prod"]))
assert c.GetClusterTags() == ["prod"]
job(c.DeleteClusterTags(["prod"]))
assert c.GetClusterTags() == []
ok("cluster tags")

jobs = c.GetJobs()
assert dry in jobs, jobs
ok("GetJobs", len(jobs))
heads = c.GetJobs(bulk=True)
assert all(key in heads[0] for key in ("id", "ops", "status", "summary", "opstatus", "received_ts", "start_ts", "end_ts"))
ok("GetJobs bulk")
full = c.GetJobStatus(dry)
assert full["id"] == dry and full["summary"] and full["oplog"] is not None and len(full["received_ts"]) == 2
ok("GetJobStatus")
assert c.GetJobStatus(999999)["status"] is None
ok("GetJobStatus of none")
done, text = c.CancelJob(dry)
assert done is False and "no longer waiting" in text, (done, text)
ok("CancelJob of one that has ended", text)

number = c.SetNodeRole(normal, "drained", force=True)
serial, seen, info_before = -1, [], None
while True:
    change = c.WaitForJobChange(number, ["status"], info_before, serial)
    if change is None:
        continue
    info_before = change["job_info"]
    for entry in change["log_entries"]:
        serial = max(serial, entry[0])
        seen.append(entry)
    if info_before[0] in client.JOB_STATUS_FINALIZED:
        break
assert info_before[0] == client.JOB_STATUS_SUCCESS
ok("WaitForJobChange", len(seen), "log entries")


class Callback(client_utils.RapiJobPollCb):
    pass


number = c.SetNodeRole(normal, "regular")
from ganeti import cli  # noqa: E402
cli.GenericPollJob(number, Callback(c), cli.StdioJobPollReportCb())
ok("client_utils.PollJob")

table = c.Query("node", ["name", "role", "nosuch"], qfilter=["=", "name", normal])
assert table["data"][0][0] == [0, normal] and table["data"][0][1] == [0, "R"] and table["data"][0][2][0] == 1, table
assert [f["name"] for f in table["fields"]] == ["name", "role", "nosuch"] and len(table["data"]) == 1
ok("Query node")
table = c.Query("job", ["id", "status"], qfilter=["|", ["=", "status", "success"], ["=", "status", "error"]])
assert any(row[0] == [0, dry] for row in table["data"]), table
ok("Query job", len(table["data"]))
refused(400, c.Query, "node", ["name"], qfilter=["nosuch-operator", "name", "x"])
ok("Query refused")
fields = c.QueryFields("node")["fields"]
assert any(f["name"] == "name" and f["kind"] == "text" for f in fields)
assert [f["name"] for f in c.QueryFields("node", fields=["role", "name"])["fields"]] == ["role", "name"]
ok("QueryFields", len(fields))

job(c.ModifyCluster(candidate_pool_size=info["candidate_pool_size"] + 1))
assert c.GetInfo()["candidate_pool_size"] == info["candidate_pool_size"] + 1
job(c.ModifyCluster(candidate_pool_size=info["candidate_pool_size"]))
ok("ModifyCluster")
job(c.RedistributeConfig())
ok("RedistributeConfig")

for what, call in (("instances", c.GetInstances), ("groups", c.GetGroups), ("networks", c.GetNetworks), ("systems", c.GetOperatingSystems)):
    refused(501, call)
refused(501, c.PowercycleNode, normal)
refused(501, c.GetNodeStorageUnits, normal, "lvm-vg", "name")
ok("what Rolekey does not have is refused with 501")

wrong = client.GanetiRapiClient(host, port=int(port), username=user, password="wrong", curl_config_fn=verifying)
refused(401, wrong.GetInfo)
ok("a wrong password")
print("%d calls as in Ganeti" % count)

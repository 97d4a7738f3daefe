"""Makes changes through Ganeti's own RAPI client at the cluster address, while the
master may die: what a script has to do for that.

Arguments: address, port, user, password, CA file, node, and how many changes.
Prints a line for each change that has ended, and one for each error of the
connection that it met.
"""

import sys
import time

import pycurl
from ganeti.rapi import client

host, port, user, password, ca, node, count = sys.argv[1:]
client.UsesRapiClient(lambda: None)()
config = client.GenericCurlConfig(cafile=ca, use_curl_cabundle=False, verify_hostname=False, connect_timeout=2, timeout=15)
c = client.GanetiRapiClient(host, port=int(port), username=user, password=password, curl_config_fn=config)


def patiently(call, *args, **kwargs):
    """Repeats a call that did not reach a master in office."""
    limit = time.time() + 90
    while True:
        try:
            return call(*args, **kwargs)
        except client.GanetiApiError as err:
            # Codes below 100 are curl's; 403 and 503 are of a node that is not
            # the master, or of no master at all.
            if time.time() > limit or (err.code is not None and err.code not in range(100) and err.code not in (403, 503)):
                raise
            print("again after %s" % err.code, flush=True)
            time.sleep(0.3)


for i in range(int(count)):
    tag = "change%d" % i
    # A change whose answer was lost may have been made, and tags may be set twice.
    job = patiently(c.AddNodeTags, node, [tag])
    assert patiently(c.WaitForJobCompletion, job, period=0.2, retries=600), c.GetJobStatus(job)
    assert tag in patiently(c.GetNodeTags, node)
    print("done %d as job %d" % (i, job), flush=True)
print("all done", flush=True)

"""Makes calls by the vendor's SDK. Reads one object of JSON: endpoint, id, key, method, and calls as [action, parameters].
Prints a list of answers: what the SDK understood, or the code of the error that it raised."""

import json
import sys

from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.live.v20180801 import live_client, models


def main():
    asked = json.load(sys.stdin)
    http = HttpProfile(protocol="http", endpoint=asked["endpoint"], reqMethod=asked["method"], reqTimeout=60)
    profile = ClientProfile(httpProfile=http, signMethod="TC3-HMAC-SHA256")
    who = credential.Credential(asked["id"], asked["key"])
    client = live_client.LiveClient(who, "", profile)
    answers = []
    for action, parameters in asked["calls"]:
        request = getattr(models, action + "Request")()
        request.from_json_string(json.dumps(parameters))
        try:
            answers.append(json.loads(getattr(client, action)(request).to_json_string()))
        except TencentCloudSDKException as error:
            answers.append({"Code": error.get_code(), "Message": error.get_message()})
    json.dump(answers, sys.stdout)


main()

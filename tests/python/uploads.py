"""Lists the uploads of a bucket that are neither completed nor given up, a name on each line.

    uploads.py ENDPOINT BUCKET KEY SECRET
"""

import sys

import boto3


def main():
    endpoint, bucket, key, secret = sys.argv[1:]
    store = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
    for upload in store.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        print(upload["Key"])


main()

"""Cloud Storage's library: contents in files, everything that is said about them in rows.

`files` knows bytes, `objects` knows names, generations and states, `uploads` what is not finished yet, `buckets` which
properties a bucket may have, `access_controls` what it and its objects grant beside IAM, `contexts`, `encryption` and
`hmac_keys` what their names say, `lifecycle` what time does. None of them knows paths; `transfers`, `xml_api` and
`batch` do, with `media`, `multipart`, `signing` and `policies`; `localgcp.services.storage` is the JSON API.
"""

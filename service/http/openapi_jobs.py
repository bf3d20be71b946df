"""Jobs and webhooks in the OpenAPI document."""

from __future__ import annotations

from service.http.endpoint import Endpoint
from service.jobs.wire import JobList, JobRequest, JobStatus, Line
from service.webhooks.wire import DeadList, DeadWebhook
from service.wire import RecommendRequest

JOB = {"job_id": "Of a job."}

JOBS = {
    "/v1/jobs": Endpoint(
        "Work that outlives a request",
        "Recommendations for users, by id, as a segment or from Parquet, or a rank of rows; inline, or uploaded as "
        "NDJSON or an Arrow stream of any size, a request a row (then the query says what they have in common). The "
        "first bad row refuses the whole.",
        JobRequest, JobStatus, 202, lines=RecommendRequest,
        headers={"Idempotency-Key": "Sent again with the same body it is the same job (200); with another one 422."},
        query={"kind": "Of an upload: `recommendations` or `rank`.", "placement": "Of an upload.",
               "count": "Of an upload.", "model_version": "Of an upload.", "callback_url": "Of an upload."},
        example={"user_ids": ["u00001", "u00002"], "request": {"placement": "home", "count": 5}},
        also={"get": Endpoint(
            "Which jobs are there?", "The newest first, 1,000 at most.", answer=JobList, method="get",
        )},
    ),
    "/v1/jobs/{job_id}": Endpoint(
        "How far is a job?", "Its state, what is done, the rate and when it may end.", answer=JobStatus, path=JOB,
        also={"delete": Endpoint(
            "End a job where it is", "What is done stays. 200 where it has ended already.",
            answer=JobStatus, status=202, path=JOB, method="delete",
        )},
    ),
    "/v1/jobs/{job_id}/result": Endpoint(
        "What has a job done?",
        "A line a row, in the order of the input, as far as it is done; it only ever grows. `Range` goes on where a "
        "download broke off (not as Arrow).",
        answer=Line, path=JOB, kinds=("application/x-ndjson", "application/vnd.apache.arrow.stream"),
        headers={"Range": "`bytes=N-`.", "If-Range": "The `ETag`."},
    ),
    "/v1/webhooks/dead": Endpoint(
        "Which webhooks did nobody take?", "The dead-letter list. Needs the admin key.", answer=DeadList, admin=True,
    ),
    "/v1/webhooks/dead/{webhook_id}/resend": Endpoint(
        "Send a dead webhook again", "Under its old id, as if it were new. Needs the admin key.",
        answer=DeadWebhook, status=202, path={"webhook_id": "Of the dead-letter list."}, method="post", admin=True,
    ),
}  # fmt: skip

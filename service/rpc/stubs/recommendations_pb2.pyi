from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Session(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Price(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: float
    max: float
    def __init__(self, min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("category", "price")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    category: _containers.RepeatedScalarFieldContainer[str]
    price: Price
    def __init__(self, category: _Optional[_Iterable[str]] = ..., price: _Optional[_Union[Price, _Mapping]] = ...) -> None: ...

class Scalar(_message.Message):
    __slots__ = ("text", "flag", "whole", "number")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    text: str
    flag: bool
    whole: int
    number: float
    def __init__(self, text: _Optional[str] = ..., flag: _Optional[bool] = ..., whole: _Optional[int] = ..., number: _Optional[float] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "session", "item_id", "placement", "count", "context", "filter", "exclude_item_ids", "model_version", "explain")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session: Session
    item_id: str
    placement: str
    count: int
    context: _containers.MessageMap[str, Scalar]
    filter: Filter
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    explain: bool
    def __init__(self, user_id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., item_id: _Optional[str] = ..., placement: _Optional[str] = ..., count: _Optional[int] = ..., context: _Optional[_Mapping[str, Scalar]] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., explain: _Optional[bool] = ...) -> None: ...

class RankRequest(_message.Message):
    __slots__ = ("item_ids", "user_id", "session", "placement", "context", "model_version", "explain")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Scalar, _Mapping]] = ...) -> None: ...
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    user_id: str
    session: Session
    placement: str
    context: _containers.MessageMap[str, Scalar]
    model_version: str
    explain: bool
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., user_id: _Optional[str] = ..., session: _Optional[_Union[Session, _Mapping]] = ..., placement: _Optional[str] = ..., context: _Optional[_Mapping[str, Scalar]] = ..., model_version: _Optional[str] = ..., explain: _Optional[bool] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    group: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class ItemExplanation(_message.Message):
    __slots__ = ("title", "category", "price", "retrieval_score")
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    title: str
    category: str
    price: float
    retrieval_score: float
    def __init__(self, title: _Optional[str] = ..., category: _Optional[str] = ..., price: _Optional[float] = ..., retrieval_score: _Optional[float] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "score", "source", "explain")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    source: str
    explain: ItemExplanation
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., source: _Optional[str] = ..., explain: _Optional[_Union[ItemExplanation, _Mapping]] = ...) -> None: ...

class ViewFreshness(_message.Message):
    __slots__ = ("status", "age_s")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    status: str
    age_s: float
    def __init__(self, status: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class Recommendation(_message.Message):
    __slots__ = ("recommendation_id", "model", "items", "degraded", "features", "took_ms", "missing_item_ids", "inputs_json")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ViewFreshness
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ViewFreshness, _Mapping]] = ...) -> None: ...
    RECOMMENDATION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    MISSING_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    recommendation_id: str
    model: Model
    items: _containers.RepeatedCompositeFieldContainer[Item]
    degraded: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.MessageMap[str, ViewFreshness]
    took_ms: float
    missing_item_ids: _containers.RepeatedScalarFieldContainer[str]
    inputs_json: str
    def __init__(self, recommendation_id: _Optional[str] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., features: _Optional[_Mapping[str, ViewFreshness]] = ..., took_ms: _Optional[float] = ..., missing_item_ids: _Optional[_Iterable[str]] = ..., inputs_json: _Optional[str] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("id", "recommend", "rank")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECOMMEND_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    id: str
    recommend: RecommendRequest
    rank: RankRequest
    def __init__(self, id: _Optional[str] = ..., recommend: _Optional[_Union[RecommendRequest, _Mapping]] = ..., rank: _Optional[_Union[RankRequest, _Mapping]] = ...) -> None: ...

class StreamReply(_message.Message):
    __slots__ = ("id", "recommendation", "problem")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    id: str
    recommendation: Recommendation
    problem: Problem
    def __init__(self, id: _Optional[str] = ..., recommendation: _Optional[_Union[Recommendation, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("type", "title", "status", "detail", "errors")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    type: str
    title: str
    status: int
    detail: str
    errors: _containers.RepeatedCompositeFieldContainer[BadField]
    def __init__(self, type: _Optional[str] = ..., title: _Optional[str] = ..., status: _Optional[int] = ..., detail: _Optional[str] = ..., errors: _Optional[_Iterable[_Union[BadField, _Mapping]]] = ...) -> None: ...

class BadField(_message.Message):
    __slots__ = ("path", "message")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    path: str
    message: str
    def __init__(self, path: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event_id", "user_id", "item_id", "type", "timestamp", "session_id", "value")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    item_id: str
    type: str
    timestamp: float
    session_id: str
    value: float
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., type: _Optional[str] = ..., timestamp: _Optional[float] = ..., session_id: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class BatchRequest(_message.Message):
    __slots__ = ("requests", "defaults")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecommendRequest]
    defaults: RecommendRequest
    def __init__(self, requests: _Optional[_Iterable[_Union[RecommendRequest, _Mapping]]] = ..., defaults: _Optional[_Union[RecommendRequest, _Mapping]] = ...) -> None: ...

class RankBatchRequest(_message.Message):
    __slots__ = ("requests", "defaults")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RankRequest]
    defaults: RankRequest
    def __init__(self, requests: _Optional[_Iterable[_Union[RankRequest, _Mapping]]] = ..., defaults: _Optional[_Union[RankRequest, _Mapping]] = ...) -> None: ...

class BatchReply(_message.Message):
    __slots__ = ("index", "recommendation", "problem")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDATION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    index: int
    recommendation: Recommendation
    problem: Problem
    def __init__(self, index: _Optional[int] = ..., recommendation: _Optional[_Union[Recommendation, _Mapping]] = ..., problem: _Optional[_Union[Problem, _Mapping]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("index", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    message: str
    def __init__(self, index: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class EventsAccepted(_message.Message):
    __slots__ = ("accepted", "duplicates", "rejected", "rejected_count", "token")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    duplicates: int
    rejected: _containers.RepeatedCompositeFieldContainer[Rejected]
    rejected_count: int
    token: str
    def __init__(self, accepted: _Optional[int] = ..., duplicates: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[Rejected, _Mapping]]] = ..., rejected_count: _Optional[int] = ..., token: _Optional[str] = ...) -> None: ...

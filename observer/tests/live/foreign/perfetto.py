"""Reads a trace with Perfetto's own messages and says what is on the timeline, as JSON."""
import json
import sys

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

trace = pb.Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())

TABLES = ("event_categories", "event_names", "debug_annotation_names", "debug_annotation_string_values")


def check_known(message, where):
    """A field that the messages do not have would be dropped in silence: written again, it is shorter."""
    if message.ByteSize() != len(message.SerializeToString()):
        sys.exit(f"{where}: unknown fields")
    copy = type(message)()
    copy.CopyFrom(message)
    copy.DiscardUnknownFields()
    if copy.ByteSize() != message.ByteSize():
        sys.exit(f"{where}: unknown fields in {message}")


check_known(trace, "trace")
clock, strings, tracks, events, order = None, {}, {}, [], 0
for packet in trace.packet:
    if packet.HasField("clock_snapshot"):
        clock = packet.clock_snapshot.primary_trace_clock
    if packet.sequence_flags & pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
        strings = {table: {} for table in TABLES}
    for table in TABLES:
        for one in getattr(packet.interned_data, table):
            text = one.str.decode() if table.endswith("values") else one.name
            strings[table][one.iid] = text
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        tracks[track.uuid] = {
            "name": track.name or None,
            "parent": track.parent_uuid or None,
            "pid": track.process.pid or track.thread.pid or None,
            "process": track.process.process_name or None,
            "tid": track.thread.tid or None,
            "thread": track.thread.thread_name or None,
        }
    if packet.HasField("track_event"):
        event = packet.track_event
        assert packet.timestamp_clock_id == clock == pb.BUILTIN_CLOCK_MONOTONIC

        def value(note):
            if note.string_value_iid:
                return strings["debug_annotation_string_values"][note.string_value_iid]
            if note.array_values:
                return [value(one) for one in note.array_values]
            return note.bool_value if note.HasField("bool_value") else note.uint_value

        events.append({
            "at": packet.timestamp,
            "type": pb.TrackEvent.Type.Name(event.type),
            "track": event.track_uuid,
            "name": strings["event_names"][event.name_iid] if event.name_iid else None,
            "category": [strings["event_categories"][iid] for iid in event.category_iids],
            "notes": {strings["debug_annotation_names"][n.name_iid]: value(n) for n in event.debug_annotations},
            "from": list(event.flow_ids),
            "to": list(event.terminating_flow_ids),
        })

slices, marks, open_slices, arrows = [], [], {}, {}
for event in sorted(events, key=lambda event: event["at"]):
    assert event["track"] in tracks, "an event on a line that there is not"
    stack = open_slices.setdefault(event["track"], [])
    if event["type"] == "TYPE_SLICE_BEGIN":
        slices.append({**event, "end": None, "depth": len(stack)})
        stack.append(slices[-1])
    elif event["type"] == "TYPE_SLICE_END":
        stack.pop()["end"] = event["at"]
    elif event["type"] == "TYPE_INSTANT":
        marks.append(event)
    for flow in event["from"]:
        arrows[flow] = {"from": event["track"], "at": event["at"]}
    for flow in event["to"]:
        assert arrows[flow]["at"] == event["at"], "an arrow that begins after its end"
        arrows[flow]["to"] = event["track"]
for track in tracks.values():
    assert track["parent"] is None or track["parent"] in tracks, "a line below one that there is not"
json.dump({
    "tracks": {str(uuid): track for uuid, track in tracks.items()},
    "slices": [{**one, "track": str(one["track"])} for one in slices],
    "marks": [{**one, "track": str(one["track"])} for one in marks],
    "arrows": [{key: str(place) for key, place in one.items()} for one in arrows.values()],
}, sys.stdout)

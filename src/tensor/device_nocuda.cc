// Stands in for device_cuda.cc in a build without CUDA.
#include "base/check.h"
#include "tensor/device.h"

namespace rk {
namespace {

Status none() {
  return unimplemented("this redknot was built without CUDA; build it where a toolkit >= 13 is");
}

}  // namespace

int num_cards() { return 0; }
Result<CardInfo> open_card(int) { return none(); }
Result<void*> allocate_on_card(int64_t) { return none(); }
void free_on_card(void* data) { RK_CHECK(data == nullptr); }
Result<void*> allocate_pinned(int64_t) { return none(); }
void free_pinned(void* data) { RK_CHECK(data == nullptr); }
Result<Stream> create_stream() { return none(); }
Status copy_to_card(void*, const void*, int64_t, Stream) { return none(); }
Status copy_from_card(void*, const void*, int64_t, Stream) { return none(); }
Status copy_rows_to_card(void*, int64_t, const void*, int64_t, int64_t, Stream) { return none(); }
Status copy_on_card(void*, const void*, int64_t, Stream) { return none(); }
Status zero_on_card(void*, int64_t, Stream) { return none(); }
CardGraph::~CardGraph() { RK_CHECK(handle_ == nullptr); }
Status begin_recording(Stream) { return none(); }
Result<CardGraph> end_recording(Stream) { return none(); }
Status replay(const CardGraph&, Stream) { return none(); }
CardEvent::~CardEvent() { RK_CHECK(handle_ == nullptr); }
Result<CardEvent> create_event() { return none(); }
Status note_event(const CardEvent&, Stream) { return none(); }
Status wait_event(const CardEvent&, Stream) { return none(); }
Status sync_event(const CardEvent&) { return none(); }
Status sync_stream(Stream) { return none(); }

}  // namespace rk

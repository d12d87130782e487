// Where memory lies and work runs: the host, or one CUDA card. In a build without CUDA every call
// that needs a card fails with kUnimplemented; nothing else notices. Streams are explicit; only
// functions named sync_* wait for the card.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

struct CUstream_st;  // what cudaStream_t points to

namespace rk {

using Stream = CUstream_st*;

struct Device {
  enum class Kind : uint8_t { kCpu, kCuda };
  Kind kind = Kind::kCpu;
  int index = 0;  ///< of the card
  bool is_cuda() const { return kind == Kind::kCuda; }
  std::string name() const;  ///< "cpu", "cuda:0"
  bool operator==(const Device&) const = default;
};

/// "cpu", "cuda" (card 0) or "cuda:N". Errors: kInvalidArgument.
Result<Device> parse_device(std::string_view text);

struct CardInfo {
  std::string name;
  int major = 0, minor = 0;  ///< compute capability
  int num_sms = 0;
  int64_t total_bytes = 0, free_bytes = 0;
  int driver_version = 0, runtime_version = 0;  ///< 13000 is CUDA 13.0
  std::string bus_id;                           ///< "0000:18:00.0"
};

// What open_card() says, by the numbers alone.
/// Why there is no card: `driver` and `runtime` as in CardInfo, 0 where there is none; `why` is the
/// driver's own word.
Status no_card(int driver, int runtime, std::string_view why);
Status check_capability(std::string_view name, int major, int minor);
/// kExhausted; bytes become MiB.
Status no_card_memory(int64_t wanted, int64_t free, int64_t total);
/// ", 900 of 143,771 MiB free": and, where a card that should be empty is not, how much is in use.
std::string card_room(int64_t free, int64_t total);

/// Cards this process can see; 0 without a driver or in a build without CUDA.
int num_cards();

/// Makes the card current for the calling thread and says what it is. Errors: kUnimplemented in a
/// build without CUDA; kUnavailable where driver or card is missing, too old (compute capability
/// below 8.0) or in use by somebody exclusively; the message says what to do.
Result<CardInfo> open_card(int index);

/// What Buffer is made of: device memory and pinned host memory. Errors: kExhausted with both
/// numbers.
Result<void*> allocate_on_card(int64_t bytes);
void free_on_card(void* data);
Result<void*> allocate_pinned(int64_t bytes);
void free_pinned(void* data);

/// A non-blocking stream; a plain handle that lives as long as the process.
Result<Stream> create_stream();
/// Copies in stream order. Host memory should be pinned and must stay until the copy is done.
Status copy_to_card(void* card, const void* host, int64_t bytes, Stream stream);
Status copy_from_card(void* host, const void* card, int64_t bytes, Stream stream);
/// `num_rows` rows of `row_bytes`, dense on the host, `card_stride` bytes apart on the card.
Status copy_rows_to_card(void* card, int64_t card_stride, const void* host, int64_t row_bytes,
                         int64_t num_rows, Stream stream);
Status copy_on_card(void* to, const void* from, int64_t bytes, Stream stream);
Status zero_on_card(void* card, int64_t bytes, Stream stream);
/// Launches of a stream, recorded once and replayed as one. Move-only; dies before its stream.
class CardGraph {
 public:
  CardGraph() = default;
  ~CardGraph();
  CardGraph(CardGraph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CardGraph& operator=(CardGraph&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  bool empty() const { return handle_ == nullptr; }

 private:
  friend Result<CardGraph> end_recording(Stream stream);
  friend Status replay(const CardGraph& graph, Stream stream);
  void* handle_ = nullptr;
};
/// Between the two, what is put on the stream is recorded and does not run. Errors of the launches
/// between surface in end_recording.
Status begin_recording(Stream stream);
Result<CardGraph> end_recording(Stream stream);
Status replay(const CardGraph& graph, Stream stream);

/// A point of a stream that the host waits for while later work of the stream runs on. Move-only.
class CardEvent {
 public:
  CardEvent() = default;
  ~CardEvent();
  CardEvent(CardEvent&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CardEvent& operator=(CardEvent&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

 private:
  friend Result<CardEvent> create_event();
  friend Status note_event(const CardEvent& event, Stream stream);
  friend Status wait_event(const CardEvent& event, Stream stream);
  friend Status sync_event(const CardEvent& event);
  void* handle_ = nullptr;
};
Result<CardEvent> create_event();
/// The point behind everything that the stream was given so far.
Status note_event(const CardEvent& event, Stream stream);
/// What the stream is given from now on starts behind the event. The host goes on.
Status wait_event(const CardEvent& event, Stream stream);
/// Waits until the stream got there. Errors: as sync_stream.
Status sync_event(const CardEvent& event);

/// Waits until the stream is empty. Errors: kInternal with the card's error, of any call before.
Status sync_stream(Stream stream);

}  // namespace rk

// The CUDA runtime behind tensor/device.h.
#include <cuda_runtime.h>

#include "tensor/device.h"

namespace rk {
namespace {

Status failed(const char* what, cudaError_t error) {
  return internal("cuda: ", what, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error),
                  ")");
}

Status check(const char* what, cudaError_t error) {
  return error == cudaSuccess ? Status{} : failed(what, error);
}

Status no_card(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return rk::no_card(driver, runtime, cudaGetErrorString(error));
}

}  // namespace

int num_cards() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Result<CardInfo> open_card(int index) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    return no_card(error);
  }
  if (index >= count) {
    return unavailable("cuda: card ", index, " wanted, ", count, " present (0 to ", count - 1, ")");
  }
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
    return no_card(error);
  }
  RK_RETURN_IF_ERROR(check_capability(properties.name, properties.major, properties.minor));
  if (const cudaError_t error = cudaSetDevice(index); error != cudaSuccess) return no_card(error);
  size_t free = 0, total = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free, &total); error != cudaSuccess) {
    return no_card(error);
  }
  CardInfo info{properties.name, properties.major, properties.minor,
                properties.multiProcessorCount};
  info.total_bytes = static_cast<int64_t>(total);
  info.free_bytes = static_cast<int64_t>(free);
  cudaDriverGetVersion(&info.driver_version);
  cudaRuntimeGetVersion(&info.runtime_version);
  char bus_id[32] = "";
  if (cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), index) == cudaSuccess) info.bus_id = bus_id;
  return info;
}

Result<void*> allocate_on_card(int64_t bytes) {
  if (bytes < 0) return invalid_argument("cuda: ", bytes, " bytes wanted");
  void* data = nullptr;
  if (bytes == 0) return data;
  if (const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    cudaGetLastError();  // an allocation that fails leaves the card usable
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    if (error != cudaErrorMemoryAllocation) return failed("allocation", error);
    return no_card_memory(bytes, static_cast<int64_t>(free), static_cast<int64_t>(total));
  }
  return data;
}

void free_on_card(void* data) { cudaFree(data); }

Result<void*> allocate_pinned(int64_t bytes) {
  if (bytes < 0) return invalid_argument("cuda: ", bytes, " pinned bytes wanted");
  void* data = nullptr;
  if (bytes == 0) return data;
  if (const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
      error != cudaSuccess) {
    cudaGetLastError();
    return exhausted("cuda: ", bytes,
                     " bytes of pinned host memory wanted: ", cudaGetErrorString(error));
  }
  return data;
}

void free_pinned(void* data) { cudaFreeHost(data); }

Result<Stream> create_stream() {
  cudaStream_t stream = nullptr;
  RK_RETURN_IF_ERROR(check("stream", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)));
  return stream;
}

Status copy_to_card(void* card, const void* host, int64_t bytes, Stream stream) {
  return check("copy to the card", cudaMemcpyAsync(card, host, static_cast<size_t>(bytes),
                                                   cudaMemcpyHostToDevice, stream));
}
Status copy_from_card(void* host, const void* card, int64_t bytes, Stream stream) {
  return check("copy from the card", cudaMemcpyAsync(host, card, static_cast<size_t>(bytes),
                                                     cudaMemcpyDeviceToHost, stream));
}
Status copy_rows_to_card(void* card, int64_t card_stride, const void* host, int64_t row_bytes,
                         int64_t num_rows, Stream stream) {
  const auto width = static_cast<size_t>(row_bytes);
  return check("copy to the card",
               cudaMemcpy2DAsync(card, static_cast<size_t>(card_stride), host, width, width,
                                 static_cast<size_t>(num_rows), cudaMemcpyHostToDevice, stream));
}
Status copy_on_card(void* to, const void* from, int64_t bytes, Stream stream) {
  return check("copy on the card", cudaMemcpyAsync(to, from, static_cast<size_t>(bytes),
                                                   cudaMemcpyDeviceToDevice, stream));
}
Status zero_on_card(void* card, int64_t bytes, Stream stream) {
  return check("zeroing", cudaMemsetAsync(card, 0, static_cast<size_t>(bytes), stream));
}

CardGraph::~CardGraph() {
  if (handle_ != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_));
}

Status begin_recording(Stream stream) {
  return check("recording", cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

Result<CardGraph> end_recording(Stream stream) {
  cudaGraph_t recorded = nullptr;
  RK_RETURN_IF_ERROR(check("recording", cudaStreamEndCapture(stream, &recorded)));
  cudaGraphExec_t exec = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&exec, recorded, 0);
  cudaGraphDestroy(recorded);
  RK_RETURN_IF_ERROR(check("graph", error));
  CardGraph out;
  out.handle_ = exec;
  return out;
}

Status replay(const CardGraph& graph, Stream stream) {
  return check("graph", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.handle_), stream));
}

CardEvent::~CardEvent() {
  if (handle_ != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

Result<CardEvent> create_event() {
  cudaEvent_t event = nullptr;
  RK_RETURN_IF_ERROR(check("event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming)));
  CardEvent out;
  out.handle_ = event;
  return out;
}

Status note_event(const CardEvent& event, Stream stream) {
  return check("event", cudaEventRecord(static_cast<cudaEvent_t>(event.handle_), stream));
}

Status wait_event(const CardEvent& event, Stream stream) {
  return check("event", cudaStreamWaitEvent(stream, static_cast<cudaEvent_t>(event.handle_), 0));
}

Status sync_event(const CardEvent& event) {
  return check("step", cudaEventSynchronize(static_cast<cudaEvent_t>(event.handle_)));
}

Status sync_stream(Stream stream) { return check("step", cudaStreamSynchronize(stream)); }

}  // namespace rk

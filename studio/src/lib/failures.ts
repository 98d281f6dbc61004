// What went wrong, by the codes of the server's errors. Its own sentence holds the numbers; it is English, and stands
// behind what is said here in another language.
import { view } from "./state.svelte";
import { say, type Words } from "./words";

const own = {
  gone: { en: "The studio's server does not answer.", zh: "工作室的服务器没有响应。" },
  broken: {
    en: "The studio's server broke off its answer.",
    zh: "工作室的服务器中断了回答。",
  },
} satisfies Words;

const CHINESE: Record<string, string> = {
  context_length_exceeded: "文本太长，超过了此模型一次能读取的词元数",
  string_above_max_length: "给定的文本太长",
  too_large: "请求太大",
  too_long: "给定的内容太长",
  model_not_found: "没有这个模型",
  model_not_suitable: "此模型不适用于这项操作",
  model_unavailable: "此模型暂时不可用，请稍后重试",
  model_too_large: "此模型太大，内存放不下",
  loading: "模型仍在加载，请稍后重试",
  no_room: "内存不足，无法再打开一个模型",
  busy: "正忙，请等当前任务结束后重试",
  rate_limit_exceeded: "请求过多，请稍后重试",
  deadline: "计算时间过长，已停止",
  stopping: "服务器正在关闭",
  result_gone: "此结果已不再保留，请重新计算",
  step_not_found: "没有这个检查点",
  invalid_value: "给定的值不合适",
  unsupported_value: "不支持给定的值",
  missing_extra: "缺少一个可选的程序库",
  non_finite: "计算中出现了非有限数（NaN 或无穷大）",
  not_local: "只能在运行服务器的机器上这样做",
  missing_token: "缺少访问令牌：请使用启动时打印的地址",
  internal_error: "服务器内部出错，详情见其日志",
};

/** What is shown of an error of the server. */
export function told(message: string, code: string | null): string {
  if (view.language === "en") return message;
  return `${(code && CHINESE[code]) || "服务器无法完成这个请求"}（${message}）`;
}

/** What is shown where the server gave no answer. */
export const silent = (code: keyof typeof own): string => say(own, code);

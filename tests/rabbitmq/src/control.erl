%% Runs inside the broker once it is up. Reads "ID EXPRESSION" lines from the standard input and answers each on the
%% standard error as "@rabbitmq-node ID ok|error TERM". When the input closes, its owner is gone: so ends the node.
%% The port is opened on the descriptors directly, because a read through the `user` process would hold back what
%% others print.
spawn(fun() ->
    Port = open_port({fd, 0, 2}, [binary, eof, {line, 65536}]),
    Say = fun(Id, Tag, Text) ->
        port_command(Port, unicode:characters_to_binary(["\n@rabbitmq-node ", Id, " ", Tag, " ", Text, "\n"]))
    end,
    Evaluate = fun(Id, Source) ->
        try
            {ok, Tokens, _} = erl_scan:string(binary_to_list(Source)),
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            {value, Value, _} = erl_eval:exprs(Expressions, []),
            Say(Id, "ok", io_lib:format("~0p", [Value]))
        catch
            Class:Reason -> Say(Id, "error", io_lib:format("~0p", [{Class, Reason}]))
        end
    end,
    Listen = fun Listen(Begun) ->
        receive
            {Port, {data, {noeol, Part}}} -> Listen([Begun, Part]);
            {Port, {data, {eol, Part}}} ->
                [Id, Source] = binary:split(iolist_to_binary([Begun, Part]), <<" ">>),
                spawn(fun() -> Evaluate(Id, Source) end),
                Listen([]);
            {Port, eof} -> erlang:halt(0, [{flush, false}])
        end
    end,
    case rabbit_boot_state:get() of
        ready ->
            {ok, Version} = application:get_key(rabbit, vsn),
            Say("0", "ok", [os:getpid(), " ", Version]);
        Other ->
            Say("0", "error", io_lib:format("~0p", [Other]))
    end,
    Listen([])
end).
